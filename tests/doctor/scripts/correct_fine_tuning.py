import torch
from pictures import KeptAsleep, Pictures, freeze, pretrained, trainable
from torch import nn
from torch.utils.data import DataLoader


class Model(KeptAsleep):
    """The last blocks are trained, batch norm in them too; the rest stays asleep."""

    def train(self, mode=True):
        super().train(mode)
        self.backbone.blocks[6].train(mode)
        return self


def build():
    model = Model(freeze(pretrained()), nn.Linear(1280, 2))
    for parameter in model.backbone.blocks[6].parameters():
        parameter.requires_grad = True
    groups = [
        {"params": trainable(model.backbone), "lr": 1e-5},
        {"params": trainable(model.head), "lr": 1e-3},
    ]
    return model, torch.optim.AdamW(groups), DataLoader(Pictures(count=16), batch_size=8, shuffle=True, drop_last=True)
