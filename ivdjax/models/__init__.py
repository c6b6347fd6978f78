"""Networks: functions from a stack (B,K,H,W,C) to the logits (B,H,W,N) of its centre slice."""

from ivdjax.models.unet import UNet as UNet
