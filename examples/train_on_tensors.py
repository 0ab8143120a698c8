"""Train a small network on tensors of your own: spectrograms of both ears, and depth maps in metres.

Run from the repository with `python examples/train_on_tensors.py`. The data here are random: replace
`spectrograms` and `depth`. Unmeasured pixels of a depth map are 0.
"""

import torch
from torch.utils.data import DataLoader, TensorDataset

from binaural import BinauralAttentionDepthNet, BinauralAttentionLoss

spectrograms = torch.randn(32, 2, 64, 64)  # left and right ear, frequency, time
depth = 10 * torch.rand(32, 1, 64, 64)  # metres

network = BinauralAttentionDepthNet(
    8, attention_levels=(3, 5), skip_levels=(3,), view_levels=(3,), symmetric=True, max_depth=10.0
)
network = network.to(memory_format=torch.channels_last)
loss_function = BinauralAttentionLoss()
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
loader = DataLoader(TensorDataset(spectrograms, depth), batch_size=8, shuffle=True)

for epoch in range(2):
    for inputs, targets in loader:
        loss, _ = loss_function(network(inputs.contiguous(memory_format=torch.channels_last)), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

# Weights and config.json; binaural.load_network reads the folder.
network.save_pretrained("runs/example")
print("saved to runs/example")
