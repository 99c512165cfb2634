"""The machine's load while a run lasts, sampled by MLflow's own monitors of processor, memory, disk, network and GPU.

Part of the process that writes to MLflow: of tlx it imports `core` alone.
"""

import contextlib
import time
from typing import Any

SAMPLE = 2.0  # seconds between two samples; later 1 % of the run's time so far


class Load:
    """Samples of the machine's load. What psutil or NVML raise costs the figures of that monitor, and nothing else."""

    def __init__(self, run_id: str, uri: str) -> None:
        self._monitors: list[Any] = []
        self._began = self._sampled = time.time()
        with contextlib.suppress(Exception):  # a driver that does not answer, a system that psutil does not know
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            monitor: Any = SystemMetricsMonitor  # it is not typed
            self._monitors = monitor(run_id, tracking_uri=uri).monitors

    def due(self) -> dict[str, float]:
        """The figures by name where it is time for a sample, else none; MLflow's own thread would write beside ours."""
        now, found = time.time(), dict[str, float]()
        if now - self._sampled < max(SAMPLE, (now - self._began) / 100):
            return found
        self._sampled = now
        for monitor in self._monitors:
            with contextlib.suppress(Exception):
                monitor.collect_metrics()
                found |= {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
            with contextlib.suppress(Exception):
                monitor.clear_metrics()
        return found
