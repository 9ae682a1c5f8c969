"""Layers that several networks share: convolutions, attention, reparametrisation, folding."""
