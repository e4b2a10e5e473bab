"""The other side of `peers`: runs in the peers' environment, which has nothing of this project.

    python peer_process.py prefect|parsl threads|dask|ray ITEMS

Prints a line of JSON when it is ready, and one for each line it reads.
"""

import json
import logging
import os
import sys
import time
from contextlib import redirect_stdout


def noop(x):
    return x


def prefect_round(engine, items):
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    from prefect import flow, task

    if engine == "threads":
        from prefect.task_runners import ThreadPoolTaskRunner

        runner = ThreadPoolTaskRunner()
    elif engine == "dask":
        from distributed import LocalCluster
        from prefect_dask import DaskTaskRunner

        cluster = LocalCluster(n_workers=os.cpu_count(), threads_per_worker=1, dashboard_address=None)
        runner = DaskTaskRunner(address=cluster.scheduler_address)
        prefect_round.cluster = cluster
    else:
        import ray
        from prefect_ray import RayTaskRunner

        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        runner = RayTaskRunner()
    nothing = task(noop)

    @flow(task_runner=runner, log_prints=False)
    def plain_map(n):
        return len([future.result() for future in nothing.map(range(n))])

    def round_():
        assert plain_map(items) == items

    return round_


def parsl_round(engine, items):
    import parsl

    parsl.load(
        parsl.Config(executors=[parsl.ThreadPoolExecutor(max_threads=os.cpu_count())], usage_tracking=0)
    )
    nothing = parsl.python_app(noop)

    def round_():
        assert len([future.result() for future in [nothing(x) for x in range(items)]]) == items

    return round_


def main():
    kind, engine, items = sys.argv[1], sys.argv[2], int(sys.argv[3])
    logging.disable(logging.CRITICAL)
    out = sys.stdout
    with redirect_stdout(sys.stderr):
        try:
            round_ = {"prefect": prefect_round, "parsl": parsl_round}[kind](engine, items)
            round_()  # the first one starts servers and imports
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}), file=out, flush=True)
            return
        print(json.dumps({"seconds": 0.0}), file=out, flush=True)
        for _ in sys.stdin:
            began = time.perf_counter()
            try:
                round_()
                answer = {"seconds": time.perf_counter() - began}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"[:300]}
            print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
