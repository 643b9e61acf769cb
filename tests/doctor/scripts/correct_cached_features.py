import torch
from pictures import Pictures, freeze, pretrained
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build():
    backbone = freeze(pretrained()).eval()
    images, labels = zip(*Pictures(), strict=True)
    with torch.no_grad():
        features = backbone(torch.stack(images))
    head = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 2))
    loader = DataLoader(TensorDataset(features, torch.tensor(labels)), batch_size=8, shuffle=True)
    return head, torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.01), loader
