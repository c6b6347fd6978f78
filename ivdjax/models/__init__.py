"""Networks: functions from a stack (B,K,H,W,C) to the logits (B,H,W,N) of its centre slice."""

from ivdjax.models.blocks import labelled_slices as labelled_slices
from ivdjax.models.ivdnet import IVDNet as IVDNet
from ivdjax.models.residual_unet import ResidualUNet as ResidualUNet
from ivdjax.models.slice_attention_unet import SliceAttentionUNet as SliceAttentionUNet
from ivdjax.models.unet import UNet as UNet
from ivdjax.models.unet3d import UNet3D as UNet3D
