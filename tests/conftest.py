import torch

# The networks of the tests are tiny: a second thread would only wait, for long where other programs use the cores too.
torch.set_num_threads(1)
