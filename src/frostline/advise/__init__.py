"""What should I freeze? Evidence from one pass over the images, what each plan would cost, and a recommendation with its reason."""

from frostline.advise.advice import Advice, advise

__all__ = ["Advice", "advise"]
