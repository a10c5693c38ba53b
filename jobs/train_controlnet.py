"""Train a ControlNet on pictures, condition images and captions in Parquet or WebDataset shards.

Run it again with the same arguments to continue. The result, OUT/controlnet, is in diffusers' format with
condition.json; `ap3d generate --set models.controlnet=OUT/controlnet` uses it.
"""

from typing import Any

from cluster.command import OneLineParser, run_command

STATUS = "exit status: 0 trained, 2 bad input, 3 the training could not go on"
DATA = "folder, file or URL: *.parquet with image, condition, caption; *.tar with KEY.jpg, KEY.condition.png, KEY.txt"
CONDITION = "condition.json of the data's condition images (default: that of the model's ControlNet)"


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and train; returns the exit status."""
    options = _parser().parse_args(arguments)
    from ap3d.training.controlnet_training import ControlNetConfig, ControlNetOptions, train_controlnet

    config = ControlNetConfig(
        samples=options.samples, batch=options.batch, learning_rate=options.learning_rate,
        warmup_steps=options.warmup_steps, gradient_checkpointing=options.gradient_checkpointing, seed=options.seed,
    )  # fmt: skip
    task = ControlNetOptions(
        options.data, options.out, options.model, options.condition, options.start, config, options.bad_share,
        options.save_seconds, options.export_seconds,
    )  # fmt: skip
    if options.workers:
        from cluster.training import train_with_ray

        report(train_with_ray(task, options.workers, options.gpus, options.ray_storage))
    else:
        train_controlnet(task, report, device="cuda" if options.gpus else "cpu")
    return 0


def report(row: dict[str, Any]) -> None:
    """One plain line of progress."""
    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m jobs.train_controlnet", description=__doc__, epilog=STATUS)
    add = parser.add_argument
    add("--data", required=True, metavar="URI", help=DATA)
    add("--out", required=True, metavar="URI", help="folder or URL of checkpoint and result")
    add("--model", default="builtin", help="text-to-image model that stays frozen (default: %(default)s)")
    add("--condition", metavar="FILE", help=CONDITION)
    add("--start", metavar="FOLDER", help="ControlNet to begin from (default: a copy of the UNet's encoder)")
    add("--samples", type=int, default=500_000, help="pictures to train on, repeats counted (default: %(default)s)")
    add("--batch", type=int, default=8, help="pictures of one worker's step (default: %(default)s)")
    add("--learning-rate", type=float, default=1e-5, help="default: %(default)s")
    add("--warmup-steps", type=int, default=500, help="default: %(default)s")
    add("--gradient-checkpointing", action="store_true", help="less memory, about a third more time")
    add("--bad-share", type=float, default=0.1, help="refuse data of which more is unreadable (default: %(default)s)")
    add("--save-seconds", type=float, default=600.0, help="at most this is lost to a kill (default: %(default)s)")
    add("--export-seconds", type=float, default=3600.0, help="between exports (default: %(default)s)")
    add("--seed", type=int, default=0)
    add = parser.add_argument_group("workers").add_argument
    add("--workers", type=int, default=0, metavar="N", help="processes of Ray Train; 0: this process alone")
    add("--gpus", action="store_true", help="a GPU a worker")
    add("--ray-storage", metavar="URI", help="Ray Train's own records, on storage that all machines share")
    return parser


if __name__ == "__main__":
    run_command(main)
