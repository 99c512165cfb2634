"""All subcommands."""

from functools import cache

from tlx.cli.subcommand import Subcommand

__all__ = ["subcommands"]


@cache
def subcommands() -> dict[str, Subcommand]:
    """Every subcommand by its name, in the order of --help.

    The modules are imported here and not with this one, so that a run, which needs none of them, starts sooner. They
    import nothing that takes seconds.
    """
    from tlx.cli import (
        audit,
        cache,
        compare,
        curve,
        data,
        drift,
        embed,
        evaluate,
        export,
        extend,
        predict,
        promote,
        recommend,
        report,
        resume,
        runs,
        search,
        serve,
        sync,
        ui,
        weights,
    )

    modules = (
        resume,
        runs,
        compare,
        report,
        search,
        recommend,
        curve,
        extend,
        predict,
        evaluate,
        embed,
        drift,
        export,
        serve,
        promote,
        ui,
        weights,
        data,
        audit,
        sync,
        cache,
    )
    return {module.SUBCOMMAND.name: module.SUBCOMMAND for module in modules}
