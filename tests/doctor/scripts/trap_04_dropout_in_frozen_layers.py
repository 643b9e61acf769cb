import torch
from pictures import Pictures, Plain, flips, freeze, pretrained, trainable
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader


class Model(Plain):
    def train(self, mode=True):
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm):
                module.eval()  # batch norm is thought of, dropout is not
        return self


def build():
    backbone = pretrained()
    backbone.blocks.insert(3, nn.Dropout2d(0.2))
    model = Model(freeze(backbone), nn.Sequential(nn.Dropout(0.5), nn.Linear(1280, 2)))
    return model, torch.optim.SGD(trainable(model), lr=0.01), DataLoader(Pictures(transform=flips()), batch_size=8, shuffle=True)
