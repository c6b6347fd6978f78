"""Start from another run's weights."""

from ivdjax import config
from ivdjax.config import Experiment
from ivdjax.errors import UsageError
from ivdjax.training.state import Params


def adopt(params: Params, source: Experiment, target: Experiment) -> Params:
    """Weights for `target` to start from, made of those of `source`, which may have more channels.

    Raises:
        UsageError: the networks or the stacks differ, or a channel is not among those of `source`.
    """
    run = f"--init-from {target.init_from}"
    ours, theirs = (config.to_dict(experiment.model) for experiment in (target, source))
    # The type of the arithmetic is not part of the weights.
    if differing := config.differences(ours | {"dtype": None}, theirs | {"dtype": None}):
        raise UsageError(f"{run}: is of another network ({'; '.join(differing)}, there); set --model to the same")
    if source.data.slices != target.data.slices:
        raise UsageError(f"{run}: has stacks of {source.data.slices} slices; pass --data.slices {source.data.slices}")
    wanted = target.init_channels or target.data.channels
    if len(wanted) != len(target.data.channels):
        raise UsageError(f"--init-channels {' '.join(wanted)}: name one for each of {', '.join(target.data.channels)}")
    known = source.data.channels
    if not set(wanted) <= set(known) or len(set(wanted)) < len(wanted):
        raise UsageError(
            f"--init-channels: say which of that run's channels ({', '.join(known)}) each of "
            f"{', '.join(target.data.channels)} is most like, each once"
        )
    if wanted == known and target.subsets == source.subsets:
        return params
    if not hasattr(target.model, "keep_channels"):
        raise UsageError(
            f"{run}: the weights of a {type(target.model).__name__} can be taken for the same channels only; use those "
            f"of that run, {', '.join(known)}, in their order, and channel dropout as there"
        )
    return target.model.keep_channels(params, len(known), tuple(known.index(name) for name in wanted), target.subsets)
