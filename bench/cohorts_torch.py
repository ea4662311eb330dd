"""Whole populations in one torch program: phyla's cohorts against the same training by hand, without any record of it.

    python bench/cohorts_torch.py [--members 16 64 256] [--path bmm vmap] [--rounds 5] [--epochs 6] [--threads 2] [--cpu]

Networks of 64-128-10 on digits, AdamW; each has a learning rate, a weight decay and a dropout rate of its own. Prints
member-epochs a second. phyla's turns are whole: claims, hyperparameters, copies, training, scores, checkpoints, journal.
The floor trains the same and keeps the better quarter, in memory. Rounds of the two alternate in one process.
"""

import argparse
import statistics
import tempfile
import time

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import cross_entropy, relu

import phyla
from phyla.vector.torch import Dropout, Program

BATCH, TRAIN = 64, 1437
HYPERS = {"lr": (1e-4, 1e-1), "weight_decay": (1e-6, 1e-1), "dropout": (0.0, 0.6)}


def data():
    x, y = load_digits(return_X_y=True)
    split = train_test_split((x / 16).astype("float32"), y, train_size=TRAIN, random_state=0, stratify=y)
    x, x_val, y, y_val = map(torch.from_numpy, split)
    return x, y, x_val, y_val


# phyla ----------------------------------------------------------------------------------------------------------------


def make_model():
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), Dropout("dropout"), nn.Linear(128, 10))


def accuracy(outputs, targets):
    return (outputs.argmax(-1) == targets).float().mean()


class Ours:
    def __init__(self, members, path, clock):
        x, y, x_val, y_val = data()
        self.program = Program(make_model, cross_entropy, (x, y), (x_val, y_val), accuracy, batch=BATCH, path=path)
        self.members, self.clock = members, clock

    def seconds(self, epochs):
        """Of so many epochs, after the first, in which the members are made."""
        with tempfile.TemporaryDirectory() as path:
            population = phyla.Population(
                "digits",
                space={name: phyla.Float(*bounds, log=name != "dropout") for name, bounds in HYPERS.items()},
                size=self.members,
                intervals=1 + epochs,
                exploit=phyla.Truncation(0.25),
                path=path,
                progress=False,
                threads=torch.get_num_threads(),
            )
            begin = None
            for cohort in population.cohorts():
                state = cohort.state(self.program.init)
                cohort.report(self.program(cohort, state), state, steps=self.program.batches)
                end = self.clock()
                begin = begin or end
            return end - begin


# The floor ------------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 128), nn.Linear(128, 10)

    def forward(self, x, rate=None):
        x = relu(self.a(x))
        if rate is not None:
            x = x * (torch.rand_like(x) >= rate) / (1 - rate)
        return self.b(x)


def column(values, parameter):
    return values.view(-1, *[1] * (parameter.dim() - 1))


class Floor:
    def __init__(self, members, path, clock):
        self.data, self.members, self.clock, self.step = data(), members, clock, 0
        nets = [Net() for _ in range(members)]
        self.params = {name: p.detach().clone() for name, p in stack_module_state(nets)[0].items()}
        self.mean, self.square = ({n: torch.zeros_like(p) for n, p in self.params.items()} for _ in range(2))
        self.lr, self.decay = 10 ** (-4 + 3 * torch.rand(members)), 10 ** (-6 + 5 * torch.rand(members))
        self.rate = 0.6 * torch.rand(members)
        net = nets[0].to("meta")

        def loss(params, x, y, rate):
            return cross_entropy(functional_call(net, params, (x, rate)), y)

        self.gradients = self.by_bmm if path == "bmm" else vmap(grad(loss), randomness="different")
        self.evaluate = vmap(lambda params, x: functional_call(net, params, (x,)), in_dims=(0, None))

    def by_bmm(self, params, x, y, rate):
        params = {name: parameter.requires_grad_() for name, parameter in params.items()}
        x = relu(torch.baddbmm(params["a.bias"].unsqueeze(1), x, params["a.weight"].transpose(1, 2)))
        x = x * (torch.rand_like(x) >= rate.view(-1, 1, 1)) / (1 - rate.view(-1, 1, 1))
        x = torch.baddbmm(params["b.bias"].unsqueeze(1), x, params["b.weight"].transpose(1, 2))
        loss = cross_entropy(x.reshape(-1, 10), y.reshape(-1), reduction="sum") / BATCH
        gradients = torch.autograd.grad(loss, list(params.values()))
        for parameter in params.values():
            parameter.requires_grad_(False)
        return dict(zip(params, gradients, strict=True))

    def seconds(self, epochs):
        begin = self.clock()
        for _ in range(epochs):
            self.epoch()
        return self.clock() - begin

    def epoch(self):
        x, y, x_val, y_val = self.data
        order = torch.stack([torch.randperm(TRAIN) for _ in range(self.members)])
        for i in range(0, TRAIN - BATCH + 1, BATCH):
            chosen = order[:, i : i + BATCH]
            gradients = self.gradients(self.params, x[chosen], y[chosen], self.rate)
            with torch.no_grad():
                self.adamw(gradients)
        with torch.no_grad():
            scores = (self.evaluate(self.params, x_val).argmax(-1) == y_val).float().mean(1)
            self.exploit(scores)

    def adamw(self, gradients):
        self.step += 1
        unbias1, unbias2 = 1 - 0.9**self.step, 1 - 0.999**self.step
        for name, p in self.params.items():
            gradient, mean, square = gradients[name], self.mean[name], self.square[name]
            p.mul_(1 - column(self.lr * self.decay, p))
            mean.lerp_(gradient, 0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            p.sub_(column(self.lr, p) * (mean / unbias1) / (square / unbias2).sqrt_().add_(1e-8))

    def exploit(self, scores):
        order, quarter = scores.argsort(), max(1, self.members // 4)
        worst, best = order[:quarter], order[-quarter:][torch.randint(quarter, (quarter,))]
        for stack in (self.params, self.mean, self.square):
            for leaf in stack.values():
                leaf[worst] = leaf[best]
        for values in (self.lr, self.decay, self.rate):
            values[worst] = values[best] * torch.where(torch.rand(quarter) < 0.5, 0.8, 1.2)
        self.rate.clamp_(max=0.9)


# Both -----------------------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--path", nargs="+", choices=["bmm", "vmap"], default=["bmm", "vmap"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="count processor time: for a machine that is not idle")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    epochs, clock = arguments.epochs, time.process_time if arguments.cpu else time.perf_counter
    print(f"digits, {epochs} epochs a round, median of {arguments.rounds} rounds in turn, {arguments.threads} threads")
    for path in arguments.path:
        for members in arguments.members:
            pair = [kind(members, path, clock) for kind in (Ours, Floor)]
            pair[1].seconds(1)
            rates = [[members * epochs / one.seconds(epochs) for one in pair] for _ in range(arguments.rounds)]
            ours, floor = map(statistics.median, zip(*rates, strict=True))
            ratio = statistics.median(b / a for a, b in rates)
            print(
                f"  {path:4} {members:4} members: phyla {ours:6.1f} member-epochs/s, by hand {floor:6.1f}; "
                f"phyla takes {ratio:.3f} times as long",
                flush=True,
            )


if __name__ == "__main__":
    main()
