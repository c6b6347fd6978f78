"use strict";

// Each case: the slider, the bars above it and the small slices choose the slice that is shown large.
for (const viewer of document.querySelectorAll(".viewer")) {
  const large = viewer.querySelector(".slice");
  const marks = large.querySelector(".marks");
  const told = viewer.querySelector(".where");
  const slider = viewer.querySelector("input[type=range]");
  const strip = viewer.querySelector(".strip");
  const bars = [...viewer.querySelectorAll(".bars")];
  const thumbs = [...viewer.querySelectorAll(".thumb")];

  const show = () => {
    const chosen = bars[slider.valueAsNumber - 1];
    large.setAttribute("viewBox", chosen.dataset.window);
    marks.setAttribute("href", chosen.dataset.marks);
    const words = chosen.querySelector("title").textContent;
    told.textContent = words;
    slider.setAttribute("aria-valuetext", words);
    for (const element of [...bars, ...thumbs]) {
      element.classList.toggle("shown", element.dataset.slice === slider.value);
    }
    // On a narrow screen the strip is longer than the screen is wide.
    const thumb = thumbs.find((element) => element.dataset.slice === slider.value);
    if (thumb) {
      const [place, frame] = [thumb.getBoundingClientRect(), strip.getBoundingClientRect()];
      strip.scrollLeft += place.left + place.width / 2 - frame.left - frame.width / 2;
    }
  };

  slider.addEventListener("input", show);
  viewer.addEventListener("click", (event) => {
    const aimed = event.target.closest("[data-slice]");
    if (aimed) {
      slider.value = aimed.dataset.slice;
      show();
    }
    if (aimed || large.contains(event.target)) slider.focus({ preventScroll: true });
  });
  viewer.querySelector(".scrubber").hidden = false;
  show();
}
