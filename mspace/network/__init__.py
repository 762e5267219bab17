"""All that looks into an `nn.Module`: its parameters, the order of its layers, what flows through them, how they are cut."""
