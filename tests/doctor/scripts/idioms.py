"""The ways in which people write these loops, on a network so small that all of them are examined in seconds.

A function ``trap_N_...`` has that mistake and no other; ``correct_...`` has none.
"""

import copy
import types

import timm
import torch
import torchvision
from pictures import HALF, IMAGENET, KeptAsleep, Pictures, freeze, pretrained, to_tensor, trainable
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import v2


class Tiny(nn.Module):
    """Two convolutions with batch norm whose statistics and scales are not as they were initialised."""

    def __init__(self, drop=0.0):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Dropout(drop),
            nn.Conv2d(8, 16, 3, 2, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.fc = nn.Linear(16, 2)
        with torch.no_grad():
            for _ in range(50):
                self.features(torch.randn(16, 3, 16, 16))
            for norm in norms(self):
                norm.weight.uniform_(0.5, 1.5)

    def forward(self, x):
        return self.fc(self.features(x))


class TinyAsleep(Tiny):
    def train(self, mode=True):
        super().train(mode)
        self.features.eval()
        return self


class Flipped(Dataset):
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        x, y = self.data[index]
        return (x.flip(-1) if torch.rand(()) < 0.5 else x), y


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def data(count=32, side=16):
    return TensorDataset(torch.randn(count, 3, side, side), torch.randint(0, 2, (count,)))


def batches(count=32, **options):
    return DataLoader(Flipped(data(count)), batch_size=8, shuffle=True, **options)


def with_loader(model, loader=None, optimizer=torch.optim.Adam):
    return model, optimizer(trainable(model), lr=1e-3), loader or batches()


def tiny(kind=Tiny, **options):
    model = kind(**options)
    freeze(model.features)
    return model


def train_by(model, asleep):
    """Override train() on the instance: what ``asleep`` names stays in eval mode."""

    def train(mode=True):
        nn.Module.train(model, mode)
        for module in asleep(model):
            module.eval()
        return model

    model.train = train
    return model


# batch norm


def trap_1_without_a_loader():
    return with_loader(tiny())[:2]


def trap_1_frozen_by_no_grad():
    model = Tiny()
    model.forward = lambda x: model.fc(torch.no_grad()(model.features)(x))
    return model, torch.optim.Adam(model.fc.parameters()), batches()


def trap_2_only_batch_norm_in_eval():
    model = tiny()
    for norm in norms(model):
        norm.eval()
    return with_loader(model)


def trap_2_with_dropout():
    model = tiny(drop=0.3)
    model.features.eval()
    return with_loader(model)


def correct_eval_in_forward():
    model = tiny(drop=0.3)

    def forward(x):
        model.features.eval()
        return model.fc(model.features(x))

    model.forward = forward
    return with_loader(model)


def correct_frozen_by_no_grad():
    model = TinyAsleep()
    model.forward = lambda x: model.fc(torch.no_grad()(model.features)(x))
    return model, torch.optim.Adam(model.fc.parameters()), batches()


def correct_lambda_for_train():
    model = tiny()
    model.features.eval()
    model.features.train = lambda mode=True: model.features
    return with_loader(model)


def correct_batch_norm_layers_patched():
    model = tiny()
    for norm in norms(model):
        norm.eval()
        norm.train = types.MethodType(lambda self, mode=True: self, norm)
    return with_loader(model)


def correct_train_patched_on_the_instance():
    return with_loader(train_by(tiny(drop=0.3), lambda m: [m.features]))


def correct_from_scratch():
    return with_loader(Tiny(drop=0.3), DataLoader(data(), batch_size=8))


# dropout


def trap_4_beside_sleeping_batch_norm():
    return with_loader(train_by(tiny(drop=0.3), norms))


def trap_4_functional():
    class Functional(TinyAsleep):
        def forward(self, x):
            x = F.dropout(self.features[:4](x), 0.2, self.training)
            return self.fc(self.features[4:](x))

    return with_loader(tiny(Functional))


def trap_4_between_frozen_layers():
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            parts = tiny()
            self.early, self.drop, self.late, self.fc = parts.features[:3], nn.Dropout(0.1), parts.features[4:], parts.fc

        def forward(self, x):
            return self.fc(self.late(self.drop(self.early(x))))

    return with_loader(train_by(Between(), lambda m: [m.early, m.late]))


def trap_4_stochastic_depth_and_attention():
    model = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=2, drop_path_rate=0.2, attn_drop_rate=0.1)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1)
    freeze(model)
    model.head.requires_grad_(True)
    return with_loader(model, DataLoader(Flipped(data(16, side=32)), batch_size=8))


# optimizer


def trap_6_unfrozen_later():
    model = tiny(TinyAsleep)
    optimizer = torch.optim.SGD(trainable(model), lr=0.1)
    model.features[4].weight.requires_grad = True
    return model, optimizer, batches()


def trap_6_optimizer_of_another_copy():
    model = tiny(TinyAsleep)
    return copy.deepcopy(model), torch.optim.SGD(trainable(model), lr=0.1), batches()


def trap_6_detached_output():
    class Detached(TinyAsleep):
        def forward(self, x):
            return super().forward(x).detach()

    return with_loader(tiny(Detached))


def trap_6_detached_in_the_middle():
    class Detached(TinyAsleep):
        def __init__(self):
            super().__init__()
            self.neck = nn.Linear(16, 16)

        def forward(self, x):
            return self.fc(self.neck(self.features(x)).detach())

    return with_loader(tiny(Detached))


def correct_lbfgs():
    return with_loader(tiny(TinyAsleep), optimizer=torch.optim.LBFGS)


def correct_warm_up_from_zero():
    model, optimizer, loader = with_loader(tiny(TinyAsleep), optimizer=torch.optim.SGD)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    return model, optimizer, loader


# loaders


def trap_22_list_of_batches():
    images, labels = data().tensors
    return with_loader(tiny(TinyAsleep), list(zip(images.split(8), labels.split(8), strict=True)))


def trap_25_all_there_is_are_nine():
    model = tiny(TinyAsleep)
    model.fc = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    return with_loader(model, batches(count=9))


def correct_last_batch_dropped():
    model = tiny(TinyAsleep)
    model.fc = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    return with_loader(model, batches(count=33, drop_last=True))


def correct_last_batch_of_one_without_batch_norm():
    return with_loader(tiny(TinyAsleep), batches(count=33))


def correct_generator_for_loader():
    images, labels = data().tensors
    return with_loader(tiny(TinyAsleep), (pair for pair in zip(images.split(8), labels.split(8), strict=True)))


def correct_worker_processes():
    return with_loader(tiny(TinyAsleep), batches(num_workers=1))


def correct_mapping_of_names():
    class Named(TinyAsleep):
        def forward(self, pixel_values=None, labels=None):
            logits = self.fc(self.features(pixel_values))
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    def collate(pairs):
        images, labels = zip(*pairs, strict=True)
        return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}

    return with_loader(tiny(Named), batches(collate_fn=collate))


def correct_augmentation_in_the_model():
    class Augmenting(TinyAsleep):
        def forward(self, x):
            return super().forward(x + 0.1 * torch.randn_like(x) if self.training else x)

    return with_loader(tiny(Augmenting), DataLoader(data(), batch_size=8))


# torchvision's networks, normalisation


def resnet(*, trained=True):
    model = torchvision.models.resnet18(weights=None)
    if trained:  # as if its weights had been read
        for norm in norms(model):
            norm.running_mean.uniform_(-0.1, 0.1)
            nn.init.uniform_(norm.weight, 0.5, 1)
    freeze(model)
    model.fc = nn.Linear(512, 2)
    return train_by(model, lambda m: [c for n, c in m.named_children() if n != "fc"])


def pictures(*steps, **statistics):
    return DataLoader(Pictures(count=16, side=32, transform=to_tensor(v2.RandomHorizontalFlip(), *steps, **statistics)), batch_size=8)


def trap_12_half_instead_of_imagenet():
    return with_loader(resnet(), pictures(**HALF))


def trap_12_layers_taken_over():
    backbone = nn.Sequential(*list(resnet().children())[:-1])
    return with_loader(KeptAsleep(freeze(backbone), nn.Sequential(nn.Flatten(), nn.Linear(512, 2))), pictures(**HALF))


def trap_15_torchvision():
    return with_loader(resnet(trained=False), pictures(**IMAGENET))


def trap_15_without_norm_layers():
    model = torchvision.models.squeezenet1_1(weights=None)
    freeze(model.features)
    return with_loader(train_by(model, lambda m: [m.features]), pictures(**IMAGENET))


def correct_torchvision():
    return with_loader(resnet(), pictures(**IMAGENET))


def correct_normalisation_in_the_model():
    class Normalising(KeptAsleep):
        def forward(self, x):
            return super().forward(v2.functional.normalize(x, **IMAGENET))

    backbone = resnet()
    backbone.fc = nn.Identity()
    return with_loader(Normalising(backbone, nn.Linear(512, 2)), pictures(mean=(0.0,) * 3, std=(1.0,) * 3))


def correct_last_block_trained():
    model = resnet()
    model.layer4.requires_grad_(True)
    train_by(model, lambda m: [c for n, c in m.named_children() if n not in ("layer4", "fc")])
    return with_loader(model, DataLoader(Pictures(count=16, side=32, transform=to_tensor(**IMAGENET)), batch_size=8))


def correct_frostline():
    import frostline

    model = frostline.TransferModel("tf_efficientnet_lite0", num_classes=2)
    frostline.FreezePlan("none").apply(model)
    return with_loader(model, pictures(**HALF))


def correct_noise_for_images():
    return with_loader(KeptAsleep(freeze(pretrained()), nn.Linear(1280, 2)), batches(count=16))
