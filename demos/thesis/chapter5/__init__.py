"""The sections of the thesis' chapter 5, one module each; `model` and `report` serve them all."""
