"""A finished run over HTTP: a JSON interface and one page, on this machine alone unless told otherwise."""
