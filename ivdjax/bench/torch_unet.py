"""Our U-Net and its training step once more, in PyTorch, to be timed beside it. The only file that needs torch."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ivdjax.config import Experiment, Loss, Optimizer
from ivdjax.models import UNet
from ivdjax.training.losses import DICE_SMOOTHING

Batch = dict[str, np.ndarray]


class ConvBlock(nn.Sequential):
    """`depth` times: 3x3 convolution, instance norm, leaky ReLU."""

    def __init__(self, inputs: int, features: int, depth: int):
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [
                nn.Conv2d(features if i else inputs, features, 3, padding=1, bias=False),
                nn.InstanceNorm2d(features, affine=True),
                nn.LeakyReLU(0.01, inplace=True),
            ]
        super().__init__(*layers)


class TorchUNet(nn.Module):
    """The layers of a `UNet` that is not told which channels are there.

    Args:
        model: whose layers.
        inputs: slices times channels of a stack.
    """

    def __init__(self, model: UNet, inputs: int):
        super().__init__()
        features = model.features
        below = [inputs, *features]
        self.encoder = nn.ModuleList(
            ConvBlock(F if level else inputs, F, model.depth) for level, F in enumerate(features)
        )
        self.down = nn.ModuleList(
            nn.Conv2d(below[level], below[level + 1], 2, stride=2, bias=False) for level in range(1, len(features))
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(features[level + 1], features[level], 2, stride=2, bias=False)
            for level in range(len(features) - 1)
        )
        self.decoder = nn.ModuleList(ConvBlock(2 * F, F, model.decoder_depth) for F in features[:-1])
        coarse = features[1:-1] if model.deep_supervision else ()
        self.coarse = nn.ModuleList(nn.Conv2d(F, model.classes, 1) for F in coarse)
        self.logits = nn.Conv2d(features[0], model.classes, 1)

    def forward(self, x_BxGxHxW: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return logits_BxNxHxW and the coarser ones, finest first; H and W must be what the resolutions need."""
        skips = []
        for level, block in enumerate(self.encoder):
            x_BxGxHxW = block(self.down[level - 1](x_BxGxHxW) if level else x_BxGxHxW)
            skips.append(x_BxGxHxW)
        skips.pop()
        coarse: list[torch.Tensor] = []
        for level in reversed(range(len(skips))):
            x_BxGxHxW = self.decoder[level](torch.cat([self.up[level](x_BxGxHxW), skips[level]], 1))
            if self.coarse and level:
                coarse.insert(0, self._head(self.coarse[level - 1], x_BxGxHxW))
        return self._head(self.logits, x_BxGxHxW), coarse

    @staticmethod
    def _head(head: nn.Module, x_BxGxHxW: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x_BxGxHxW.device.type, enabled=False):
            return head(x_BxGxHxW.float())

    def load(self, params: dict[str, Any]) -> None:
        """Take the weights of the `UNet`."""
        for i, block in enumerate([*self.encoder, *reversed(self.decoder)]):
            _load_block(block, params[f"ConvBlock_{i}"])
        for i, down in enumerate(self.down):
            kernel = np.asarray(params[f"Downsample_{i}"]["Dense_0"]["kernel"])
            _copy(down.weight, kernel.reshape(2, 2, -1, kernel.shape[-1]).transpose(3, 2, 0, 1))
        for i, up in enumerate(reversed(self.up)):
            kernel = np.asarray(params[f"Upsample_{i}"]["Dense_0"]["kernel"])
            _copy(up.weight, kernel.reshape(kernel.shape[0], 2, 2, -1).transpose(0, 3, 1, 2))
        coarse = {f"coarse_logits_{level}": head for level, head in enumerate(self.coarse, 1)}
        heads = {"logits": self.logits, **coarse}
        for name, head in heads.items():
            _copy(head.weight, np.asarray(params[name]["kernel"]).T[:, :, None, None])
            _copy(head.bias, params[name]["bias"])


def _load_block(block: nn.Module, params: dict[str, Any]) -> None:
    for i in range(len(block) // 3):
        _copy(block[3 * i].weight, np.asarray(params[f"Conv_{i}"]["kernel"]).transpose(3, 2, 0, 1))
        _copy(block[3 * i + 1].weight, params[f"InstanceNorm_{i}"]["scale"])
        _copy(block[3 * i + 1].bias, params[f"InstanceNorm_{i}"]["offset"])


def _copy(parameter: nn.Parameter, value: np.ndarray) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.array(value)))


def segmentation_loss(
    logits_BxNxHxW: torch.Tensor, coarse: Iterable[torch.Tensor], label_BxHxW: torch.Tensor, config: Loss
) -> torch.Tensor:
    """The mean over a batch of `losses.segmentation_loss`."""

    def part(logits_BxNxHxW: torch.Tensor, label_BxHxW: torch.Tensor) -> torch.Tensor:
        probability_BxMxHxW = logits_BxNxHxW.softmax(1)[:, 1:]
        classes_M = torch.arange(1, logits_BxNxHxW.shape[1], device=label_BxHxW.device)
        target_BxMxHxW = (label_BxHxW[:, None] == classes_M[:, None, None]).float()
        both_BxM = (probability_BxMxHxW * target_BxMxHxW).sum((2, 3))
        sizes_BxM = (probability_BxMxHxW + target_BxMxHxW).sum((2, 3))
        dice = 1 - ((2 * both_BxM + DICE_SMOOTHING) / (sizes_BxM + DICE_SMOOTHING)).mean()
        entropy = functional.cross_entropy(logits_BxNxHxW, label_BxHxW)
        return config.dice_weight * dice + config.cross_entropy_weight * entropy

    total, weight, weights = part(logits_BxNxHxW, label_BxHxW), config.deep_supervision_weight, 1.0
    for level, coarse_BxNxhxw in enumerate(coarse, 1):
        total = total + weight * part(coarse_BxNxhxw, label_BxHxW[:, :: 2**level, :: 2**level])
        weights, weight = weights + weight, weight / 2
    return total / weights


def loss_of(network: nn.Module, batch: dict[str, torch.Tensor], config: Loss) -> torch.Tensor:
    """Loss of a batch as `place` made it."""
    logits_BxNxHxW, coarse = network(batch["stack"])
    return segmentation_loss(logits_BxNxHxW, coarse, batch["label"], config)


def place(batch: Batch, device: torch.device, memory_format: torch.memory_format) -> dict[str, torch.Tensor]:
    """Put stack_BxKxHxWxC and label_Bx1xHxW on the device as PyTorch likes them: stack_BxGxHxW, G = KC features."""
    stack_BxKxHxWxC = torch.from_numpy(np.asarray(batch["stack"], np.float32))
    stack_BxGxHxW = stack_BxKxHxWxC.permute(0, 1, 4, 2, 3).flatten(1, 2).contiguous(memory_format=memory_format)
    label_BxHxW = torch.from_numpy(np.asarray(batch["label"][:, 0], np.int64))
    return {"stack": stack_BxGxHxW.to(device), "label": label_BxHxW.to(device)}


def optimize(network: nn.Module, config: Optimizer) -> tuple[torch.optim.Optimizer, Callable[[], None]]:
    """Return AdamW, and a function that clips the gradients, updates the weights and their running mean."""
    parameters = list(network.parameters())
    kernels, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim < 2]
    groups = [
        {"params": kernels, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    means = [p.detach().clone() for p in parameters]

    def update() -> None:
        nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        adamw.step()
        with torch.no_grad():
            torch._foreach_lerp_(means, [p.detach() for p in parameters], 1 - config.ema_decay)

    return adamw, update


def train_step(experiment: Experiment, params: dict[str, Any], batch: Batch) -> Callable[[], float]:
    """Return a function that makes one training step on the batch, waits for it and returns its loss.

    On CUDA the network is compiled by torch.compile, lies in memory with channels last, and computes under autocast in
    the network's precision; on a CPU it runs as it is written.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    memory_format = torch.channels_last if cuda else torch.contiguous_format
    assert isinstance(experiment.model, UNet)
    network = TorchUNet(experiment.model, batch["stack"].shape[1] * batch["stack"].shape[-1])
    network.load(params)
    network = network.to(device, memory_format=memory_format)
    placed = place(batch, device, memory_format)
    adamw, update = optimize(network, experiment.optimizer)
    forward = torch.compile(network) if cuda else network
    low = experiment.model.dtype == "bfloat16"

    def step() -> float:
        adamw.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            loss = loss_of(forward, placed, experiment.loss)
        loss.backward()
        update()
        return loss.item()

    return step
