"""Published architectures in torch, tiny: every operator their exports hold, in milliseconds.

Widths, depths and images are small; the blocks are those of the papers. Weights are random,
so nothing about accuracy is to be read from them.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn


def conv_bn(cin, cout, kernel=3, stride=1, groups=1, act=nn.ReLU, dilation=1):
    """Conv, BatchNorm and an activation (None leaves it out)."""
    pad = dilation * (kernel // 2)
    layers = [
        nn.Conv2d(cin, cout, kernel, stride, pad, dilation, groups, bias=False),
        nn.BatchNorm2d(cout),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


# ResNet, VGG, DenseNet -----------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(cin, cout, 3, stride), conv_bn(cout, cout, 3, act=None)
        )
        self.skip = (
            nn.Identity()
            if cin == cout and stride == 1
            else conv_bn(cin, cout, 1, stride, act=None)
        )

    def forward(self, x):
        return F.relu(self.body(x) + self.skip(x))


class ResNet18(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, width, 7, 2), nn.MaxPool2d(3, 2, 1))
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(Residual(a, b, 1 if at == 0 else 2), Residual(b, b, 1))
                for at, (a, b) in enumerate(pairwise(widths))
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x):
        return self.head(torch.flatten(self.pool(self.stages(self.stem(x))), 1))


class VGG(nn.Module):
    def __init__(self):
        super().__init__()
        layers, c = [], 3
        for width in (8, "M", 16, "M", 16, 16, "M"):
            if width == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(c, width, 3, padding=1), nn.ReLU(inplace=True)]
                c = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(c * 4, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10)
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


class DenseNet(nn.Module):
    def __init__(self, growth=4):
        super().__init__()
        self.stem, c = conv_bn(3, 8), 8
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for _ in range(2):
            layers = nn.ModuleList()
            for _ in range(3):
                layers.append(
                    nn.Sequential(
                        nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 2 * growth, 1, bias=False),
                        nn.BatchNorm2d(2 * growth), nn.ReLU(),
                        nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
                    )
                )  # fmt: skip
                c += growth
            self.blocks.append(layers)
            self.transitions.append(
                nn.Sequential(
                    nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c // 2, 1), nn.AvgPool2d(2)
                )
            )
            c //= 2
        self.norm, self.head = nn.BatchNorm2d(c), nn.Linear(c, 10)

    def forward(self, x):
        x = self.stem(x)
        for layers, transition in zip(self.blocks, self.transitions, strict=True):
            for layer in layers.children():
                x = torch.cat([x, layer(x)], 1)
            x = transition(x)
        return F.log_softmax(self.head(F.relu(self.norm(x)).mean((2, 3))), dim=1)


# MobileNet, EfficientNet ---------------------------------------------------------------------


class SqueezeExcite(nn.Module):
    def __init__(self, c, gate, act=nn.ReLU):
        super().__init__()
        self.down, self.up = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, c, 1)
        self.act, self.gate = act(), gate()

    def forward(self, x):
        scale = F.adaptive_avg_pool2d(x, 1)
        return x * self.gate(self.up(self.act(self.down(scale))))


class Inverted(nn.Module):
    """Expansion, depthwise, squeeze-excite or not, projection."""

    def __init__(self, cin, cout, stride=1, kernel=3, expand=4, act=nn.ReLU6, excite=None):
        super().__init__()
        c = cin * expand
        self.body = nn.Sequential(
            conv_bn(cin, c, 1, act=act),
            conv_bn(c, c, kernel, stride, groups=c, act=act),
            *([excite(c)] if excite else []),
            conv_bn(c, cout, 1, act=None),
        )
        self.residual = stride == 1 and cin == cout

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


class Mobile(nn.Module):
    """A stem, inverted residuals and a head."""

    def __init__(self, act, excite=None, kernel=3):
        super().__init__()
        self.features = nn.Sequential(
            conv_bn(3, 8, 3, 2, act=act),
            Inverted(8, 8, 1, act=act, excite=excite),
            Inverted(8, 12, 2, kernel, act=act, excite=excite),
            Inverted(12, 12, 1, kernel, act=act, excite=excite),
            conv_bn(12, 32, 1, act=act),
        )
        self.head = nn.Sequential(
            nn.Linear(32, 24),
            nn.ReLU6() if act is nn.ReLU6 else act(),
            nn.Dropout(0.2),
            nn.Linear(24, 10),
        )

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


def mobilenet_v2():
    return Mobile(nn.ReLU6)


def mobilenet_v3():
    return Mobile(nn.Hardswish, lambda c: SqueezeExcite(c, nn.Hardsigmoid), 5)


def efficientnet():
    return Mobile(nn.SiLU, lambda c: SqueezeExcite(c, nn.Sigmoid, nn.SiLU), 5)


# U-Net ---------------------------------------------------------------------------------------


class UNet(nn.Module):
    """Transposed convolution below, bilinear upsampling above; odd sizes are padded."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = conv_bn(3, 8), conv_bn(8, 16, act=nn.LeakyReLU)
        self.middle = conv_bn(16, 16, act=nn.PReLU)
        self.up2 = nn.ConvTranspose2d(16, 16, 2, 2)
        self.join2 = conv_bn(32, 8)
        self.up1 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.join1 = conv_bn(16, 8)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        x = self.middle(F.max_pool2d(b, 2, ceil_mode=True))
        x = self.join2(torch.cat([self.fit(self.up2(x), b), b], 1))
        x = self.join1(torch.cat([self.fit(self.up1(x), a), a], 1))
        return torch.softmax(self.out(x), 1)

    @staticmethod
    def fit(x, like):
        """`x` cropped or padded (reflected) to the height and width of `like`."""
        x = x[:, :, : like.shape[2], : like.shape[3]]
        dy, dx = like.shape[2] - x.shape[2], like.shape[3] - x.shape[3]
        return F.pad(x, [0, dx, 0, dy], mode="replicate")


# A detector ----------------------------------------------------------------------------------


class Bottleneck(nn.Module):
    def __init__(self, c, act):
        super().__init__()
        self.body = nn.Sequential(conv_bn(c, c, act=act), conv_bn(c, c, act=act))

    def forward(self, x):
        return x + self.body(x)


class C2f(nn.Module):
    def __init__(self, cin, cout, act=nn.SiLU):
        super().__init__()
        self.cv1 = conv_bn(cin, cout, 1, act=act)
        self.cv2 = conv_bn(cout * 3 // 2, cout, 1, act=act)
        self.block = Bottleneck(cout // 2, act)

    def forward(self, x):
        parts = list(self.cv1(x).chunk(2, 1))
        parts.append(self.block(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class SPPF(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.cv1, self.cv2 = conv_bn(c, c // 2, 1, act=nn.SiLU), conv_bn(2 * c, c, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        x = self.cv1(x)
        y1 = self.pool(x)
        y2 = self.pool(y1)
        return self.cv2(torch.cat([x, y1, y2, self.pool(y2)], 1))


class Detector(nn.Module):
    """A YOLO-style net: boxes of two scales decoded on their grids, best 20 by score."""

    def __init__(self, classes=3, bins=4):
        super().__init__()
        self.classes, self.bins = classes, bins
        self.stem = nn.Sequential(
            conv_bn(3, 8, 3, 2, act=nn.SiLU), conv_bn(8, 16, 3, 2, act=nn.Mish)
        )
        self.c1, self.down = C2f(16, 16), conv_bn(16, 16, 3, 2, act=nn.SiLU)
        self.c2 = nn.Sequential(C2f(16, 16), SPPF(16))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.fuse = C2f(32, 16)
        outputs = 4 * bins + classes
        self.heads = nn.ModuleList([nn.Conv2d(16, outputs, 1), nn.Conv2d(16, outputs, 1)])

    def forward(self, x):
        a = self.c1(self.stem(x))
        b = self.c2(self.down(a))
        a = self.fuse(torch.cat([self.up(b), a], 1))
        decoded = [
            self.decode(head(y), stride)
            for head, y, stride in zip(self.heads, (a, b), (4.0, 8.0), strict=True)
        ]
        boxes = torch.cat([box for box, _ in decoded], 1)
        scores = torch.cat([score for _, score in decoded], 1)
        best, at = scores.amax(-1).topk(20, dim=1)
        return boxes.gather(1, at.unsqueeze(-1).expand(-1, -1, 4)), best, scores.argmax(-1)

    def decode(self, y, stride):
        n, _, h, w = y.shape
        ys, xs = torch.meshgrid(
            torch.arange(h, dtype=torch.float32) + 0.5,
            torch.arange(w, dtype=torch.float32) + 0.5,
            indexing="ij",
        )
        grid = torch.stack([xs, ys], -1).view(1, -1, 2)
        y = y.permute(0, 2, 3, 1).reshape(n, h * w, -1)
        sides, scores = y.split([4 * self.bins, self.classes], dim=-1)
        bins = torch.arange(self.bins, dtype=torch.float32)
        sides = sides.reshape(n, h * w, 4, self.bins).softmax(-1) @ bins
        first, last = sides.chunk(2, -1)
        low, high = grid - first, grid + last.exp().clamp(max=8.0)
        return torch.cat([(low + high) / 2, high - low], -1) * stride, scores.sigmoid()


# Transformers --------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """Multi-head attention written with torch's fused function."""

    def __init__(self, width, heads, causal=False):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x, mask=None):
        n, t, c = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=self.causal and mask is None
        )
        return self.out(y.transpose(1, 2).reshape(n, t, c))


class ViT(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, 2)
        self.mlp = nn.Sequential(
            nn.Linear(width, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, width)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])


class BertBlock(nn.Module):
    """Embeddings, attention under a padding mask, and torch's own encoder layer."""

    def __init__(self, width=16, words=50):
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(24, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.attention = SelfAttention(width, 4)
        self.layer = nn.TransformerEncoderLayer(
            width, 4, 32, activation=nn.GELU(approximate="tanh"), batch_first=True
        )
        self.pooler = nn.Linear(width, width)

    def forward(self, ids, mask):
        places = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        x = self.norm(self.words(ids) + self.places(places))
        bias = torch.where(mask[:, None, None, :] > 0, 0.0, -1e4)
        x = x + self.attention(x, bias)
        x = self.layer(x)
        return x, torch.tanh(self.pooler(x[:, 0]))


class Decoder(nn.Module):
    """Causal attention: nn.MultiheadAttention under a triangular mask, and a fused one."""

    def __init__(self, width=16):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.causal = SelfAttention(width, 2, causal=True)
        self.group = nn.GroupNorm(4, width)
        self.norm = nn.LayerNorm(width)
        self.gate, self.value = nn.Linear(width, 32), nn.Linear(width, 32)
        self.down = nn.Linear(32, width)

    def forward(self, x):
        t = x.shape[1]
        allowed = torch.tril(torch.ones(t, t, dtype=torch.bool))
        mask = torch.zeros(t, t).masked_fill(~allowed, float("-inf"))
        y, _ = self.attention(x, x, x, attn_mask=mask, need_weights=False)
        x = x + y
        x = x + self.causal(x)
        x = self.group(x.transpose(1, 2)).transpose(1, 2)
        x = x + self.down(F.silu(self.gate(self.norm(x))) * self.value(x))
        return torch.triu(x @ x.transpose(1, 2), 1)


# Recurrent and one-dimensional ---------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 8)
        self.lstm = nn.LSTM(8, 12, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(24, 10, batch_first=True)
        self.head = nn.Linear(10, 4)

    def forward(self, ids):
        x, (h, _) = self.lstm(self.embed(ids))
        y, last = self.gru(x)
        return self.head(y[:, -1]) + self.head(last[0]), h.sum(0)


class Audio(nn.Module):
    """A 1-D net on samples: strided, dilated and depthwise convolutions, GLU, pooling."""

    def __init__(self):
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(1, 8, 16, 8, 4), nn.GroupNorm(1, 8), nn.GELU())
        self.dilated = nn.Sequential(
            nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(8, 16, 3, dilation=2), nn.GLU(1)
        )
        self.depthwise = nn.Conv1d(8, 8, 5, padding=2, groups=8)
        self.norm = nn.BatchNorm1d(8)
        self.back = nn.ConvTranspose1d(8, 4, 4, 2, 1)
        self.instance = nn.InstanceNorm1d(4, affine=True)
        self.head = nn.Linear(4, 6)

    def forward(self, x):
        x = self.dilated(self.front(x))
        x = F.max_pool1d(F.silu(self.norm(self.depthwise(x))), 2)
        x = self.instance(self.back(F.avg_pool1d(x, 3, 1, 1)))
        return self.head(F.adaptive_avg_pool1d(x, 1).squeeze(-1)), x.std(-1)


# Normalisations, convolutions ----------------------------------------------------------------


class Normalisations(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.plain = (
            nn.LayerNorm([6, 6]),
            nn.LayerNorm(6, elementwise_affine=False),
        )
        self.group, self.each = nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)
        self.affine = nn.InstanceNorm2d(4, affine=True)
        self.local = nn.LocalResponseNorm(3)

    def forward(self, x):
        y = self.layer(x) + self.plain(x) + self.group(x) + self.each(x)
        return y + self.affine(x) + self.local(x)


class Convolutions(nn.Module):
    """2-D and 3-D, grouped, transposed, every padding."""

    def __init__(self):
        super().__init__()
        self.same = nn.Conv2d(4, 4, (3, 5), padding="same", groups=2)
        self.mirror = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.ring = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
        self.up = nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2)
        self.deep = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.BatchNorm3d(2), nn.ReLU())
        self.shrink = nn.Conv2d(4, 4, 3, dilation=2, stride=2)

    def forward(self, x):
        y = self.ring(self.mirror(self.same(x)))
        deep = F.max_pool3d(self.deep(x.unsqueeze(1)), 2)
        return self.up(y), self.shrink(x), deep, F.avg_pool3d(deep, (2, 1, 1))


class Rotary(nn.Module):
    """Attention with rotary positions and shared key-value heads, written out."""

    def __init__(self, heads=4, groups=2, size=8):
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, size
        width = heads * size
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * groups * size, bias=False)

    def forward(self, x):
        n, t, _ = x.shape
        q = self.q(x).view(n, t, self.heads, self.size).transpose(1, 2)
        k, v = self.kv(x).view(n, t, 2 * self.groups, self.size).transpose(1, 2).chunk(2, 1)
        rate = 10000.0 ** (-torch.arange(0, self.size, 2, dtype=torch.float32) / self.size)
        angle = torch.outer(torch.arange(t, dtype=torch.float32), rate)
        angle = torch.cat([angle, angle], -1)
        q, k = (self.turned(z, angle.cos(), angle.sin()) for z in (q, k))
        k, v = (z.repeat_interleave(self.heads // self.groups, 1) for z in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return y.transpose(1, 2).reshape(n, t, -1)

    @staticmethod
    def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, last = x.chunk(2, -1)
        return x * cos + torch.cat([-last, first], -1) * sin


class Frames(nn.Module):
    """A spectrum of sound by convolution with windowed sines, as silero-vad does it."""

    def __init__(self, size=32):
        super().__init__()
        t = torch.arange(size) / size
        waves = 2 * math.pi * torch.outer(torch.arange(size // 2 + 1), t * 1.0)
        window = torch.hann_window(size)
        basis = torch.cat([waves.cos(), waves.sin()]) * window
        self.register_buffer("basis", basis[:, None])
        self.cell = nn.LSTMCell(size // 2 + 1, 8)

    def forward(self, x, h, c):
        y = F.conv1d(F.pad(x[:, None], (0, 8), mode="reflect"), self.basis, stride=16)
        real, imaginary = y.chunk(2, 1)
        power = torch.sqrt(real**2 + imaginary**2)
        h, c = self.cell(power.mean(-1), (h, c))
        return torch.sigmoid(h), h, c
