"""Lightning Fabric around a recipe: python examples/fabric_loop.py [options of train.h36m]

The recipe brings model, loader, loss and optimizers, Fabric the devices, the precision and the processes. Under
``torchrun`` give Fabric its strategy and devices, as here: without, each process trains a copy by itself.
"""

import os
import sys

from lightning_fabric import Fabric

from posekernels.train import h36m
from posekernels.train.loop import Step, prepare
from posekernels.train.place import Place, move

options, recipe_class = h36m.JOB.parse(sys.argv[1:])
world = int(os.environ.get("WORLD_SIZE", 1))
fabric = Fabric(accelerator=options.device, strategy="ddp" if world > 1 else "auto", devices=world)
fabric.launch()

recipe = recipe_class(options, h36m.JOB.load(options))
prepare(recipe, options, Place(fabric.device, rank=fabric.global_rank, world=fabric.world_size))
recipe.start_stage(0, None)
(optimizer,) = recipe.make_optimizers()
step, optimizer = fabric.setup(Step(recipe), optimizer)  # the recipe's loss as a module's forward
loader = recipe.make_loader(fabric.global_rank, fabric.world_size)

count = 0
for epoch in range(recipe.epochs(0)):
    loader.set_epoch(epoch)
    recipe.model.train()
    for batch in loader:
        for group in optimizer.param_groups:
            group["lr"] = options.lr * recipe.lr_factor(epoch, count)
        loss = step(0, move(batch, fabric.device))["loss"]
        optimizer.zero_grad()
        fabric.backward(loss * recipe.share(batch))
        optimizer.step()
        count += 1
    fabric.print(f"epoch {epoch + 1}: loss {loss.item():.4f} m after {count} batches")

recipe.model.eval()
figures = recipe.evaluate(recipe.place).figures
fabric.print(", ".join(f"{name} {value:.1f}" for name, value in figures.items()))
if fabric.is_global_zero and options.out:
    fabric.save(options.out, {"model": recipe.model.state_dict()})
