"""The machines that `lenet doctor` asks: this one, or the nodes of a cluster.

Each answers in a process of its own, and within a limit.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from cluster.doctor.facts import now
from cluster.doctor.findings import FAIL, Finding

# The quickest answer says most about a clock.
CLOCK_QUESTIONS = 5

Question = Callable[..., Any]


class Machines:
    """What both kinds have in common.

    Args:
        names: What they are called in findings.
        limit: Seconds in which each has to answer a question.
    """

    def __init__(self, names: list[str], limit: float) -> None:
        self.names, self._limit = names, limit
        self._lost: list[Finding] = []

    @property
    def trainers(self) -> list[str]:
        """Those that can hold workers."""
        return self.names

    @property
    def ray_gpus(self) -> dict[str, float]:
        """What Ray has to give on each."""
        return {}

    def everyone(self, *arguments: Any) -> dict[str, tuple]:
        """The same arguments for all, as `ask` takes them."""
        return dict.fromkeys(self.names, arguments)

    def users(self, *arguments: Any) -> dict[str, tuple]:
        """The same for those that need data and storage: where no node holds workers yet, all."""
        return dict.fromkeys(self.trainers or self.names, arguments)

    def ask(self, check: str, question: Question, arguments: Mapping[str, tuple]) -> dict[str, Any]:
        """Asks machines at the same time.

        Args:
            check: What it is asked for.
            question: A function of a module that the machines have.
            arguments: Of the question, for each machine that is asked.

        Returns:
            The answers, by machine. Who gives none is asked no more, and `lost` tells of it.
        """
        asked = {name: self._begin(name, question, given) for name, given in arguments.items()}
        deadline = time.monotonic() + self._limit
        answers = {}
        for name, begun in asked.items():
            try:
                answers[name] = self._end(begun, max(0.0, deadline - time.monotonic()))
            except (TimeoutError, multiprocessing.TimeoutError):
                self._lose(check, name, f"no answer in {self._limit:g} s")
            except Exception as error:
                # Whatever went wrong there, and wherever, is what there is to say of the machine.
                lines = str(error).strip().splitlines() or [type(error).__name__]
                self._lose(check, name, f"no answer: {lines[-1].strip()}")
        return answers

    def clocks(self) -> dict[str, tuple[float, float]]:
        """Seconds by which each is ahead of the clock here, and by how much that may be wrong."""
        found = {}
        for name in list(self.names):
            looks = []
            for _ in range(CLOCK_QUESTIONS):
                before = time.time()
                there = self.ask("clocks", now, {name: ()})
                after = time.time()
                if not there:
                    break
                looks.append(((after - before) / 2, there[name] - (before + after) / 2))
            else:
                doubt, ahead = min(looks)
                found[name] = ahead, doubt
        return found

    def lost(self) -> list[Finding]:
        """Who gave no answer since this was called last."""
        lost, self._lost = self._lost, []
        return lost

    def _lose(self, check: str, name: str, text: str) -> None:
        self.names.remove(name)
        fix = "see whether it is up, has this project, and is reached (docs/cluster.md, Ports)"
        self._lost.append(Finding(check=check, status=FAIL, text=text, fix=fix, machine=name))

    def _begin(self, name: str, question: Question, arguments: tuple) -> Any:
        raise NotImplementedError

    def _end(self, begun: Any, seconds: float) -> Any:
        """Waits for an answer. Raises TimeoutError, and what was raised there."""
        raise NotImplementedError


class ThisMachine(Machines):
    """This machine, without Ray."""

    def __init__(self, limit: float) -> None:
        super().__init__(["this machine"], limit)

    def __enter__(self) -> ThisMachine:
        # Not a fork: TensorFlow will start threads in it.
        self._pool = multiprocessing.get_context("spawn").Pool(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.terminate()

    def _begin(self, name: str, question: Question, arguments: tuple) -> Any:
        return self._pool.apply_async(question, arguments)

    def _end(self, begun: Any, seconds: float) -> Any:
        return begun.get(seconds)


class RayNodes(Machines):
    """The nodes of the connected cluster that are alive."""

    def __init__(self, limit: float) -> None:
        import ray

        nodes = [node for node in ray.nodes() if node["Alive"]]
        hosts = Counter(node["NodeManagerAddress"] for node in nodes)
        self._nodes = {}
        for node in nodes:
            host = node["NodeManagerAddress"]
            name = host if hosts[host] == 1 else f"{host} ({node['NodeID'][:6]})"
            self._nodes[name] = node["Resources"]
        super().__init__(list(self._nodes), limit)
        self._actors = {
            name: _actor_on(node["NodeID"]) for name, node in zip(self._nodes, nodes, strict=True)
        }

    @property
    def trainers(self) -> list[str]:
        """Those with processors to give; where there are GPUs, workers go nowhere else."""
        found = [name for name in self.names if self._nodes[name].get("CPU")]
        return [name for name in found if self._nodes[name].get("GPU")] or found

    @property
    def ray_gpus(self) -> dict[str, float]:
        """How many GPUs Ray counts on each node, by the node's name."""
        return {name: node.get("GPU", 0.0) for name, node in self._nodes.items()}

    def _begin(self, name: str, question: Question, arguments: tuple) -> Any:
        return self._actors[name].answer.remote(question, arguments)

    def _end(self, begun: Any, seconds: float) -> Any:
        import ray

        return ray.get(begun, timeout=seconds)


class _Witness:
    """An actor that answers questions on its node."""

    def answer(self, question: Question, arguments: tuple) -> Any:
        return question(*arguments)


def _actor_on(node_id: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # No processor is asked for: it must start where all of them are busy, too.
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=there)(_Witness).remote()
