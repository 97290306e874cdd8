"""``seq2seq {fit,validate,test,predict}``: the Lightning CLI over this project's tasks and data."""

import logging
import pkgutil
import sys
import warnings
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

import datamodules  # noqa: F401  # makes its classes known by their short names
import seq2seq.averaging
import seq2seq.tasks.captioning
import seq2seq.tasks.forecasting
import seq2seq.tasks.text_classification
import seq2seq.tasks.translation
import seq2seq.tasks.video  # noqa: F401
from seq2seq.callbacks import SampleLogger, Throughput
from seq2seq.checkpoint_files import DurableCheckpointIO
from seq2seq.checkpoints import CHECKPOINT_KEY, read_checkpoint
from seq2seq.confusion import ConfusionLogger
from seq2seq.errors import CheckpointError, ConfigError, find_user_error
from seq2seq.forecast_plots import ForecastPlots
from seq2seq.interruption import LastCheckpoint
from seq2seq.prediction_folder import describe_options
from seq2seq.prediction_writer import PredictionWriter

LINKED_OPTIONS = ("vocab_size", "source_vocab_size", "num_classes", "label_steps", "num_channels")
"""What the model takes from the data module's options of the same names."""
SIGTERM_STATUS = 143
"""128 + 15: what a shell reports for a process that SIGTERM ended."""

_MODE_OF_TASK = "task"  # stands for the task's own ``monitor_mode``


class SequenceCLI(LightningCLI):
    """Adds a folder per run, the checkpoint of the best model, and links from data to model."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add ``--run_dir`` and its checkpoints, and let the model take sizes from the data."""
        parser.add_argument(
            "--run_dir",
            type=str,
            default="runs/latest",
            help="Folder for checkpoints, logs, the configuration and predictions.",
        )
        # Two callbacks: one alone writes `last.ckpt` only when there is a new best (Lightning 2.6).
        for name, kind in (("checkpoint", ModelCheckpoint), ("last", LastCheckpoint)):
            parser.add_lightning_class_args(kind, name)
            # A fixed folder, so that `--ckpt_path last` is found.
            parser.link_arguments("run_dir", f"{name}.dirpath")
            parser.set_defaults(
                {
                    f"{name}.enable_version_counter": False,
                    # From the end of a training epoch Lightning 2.6 resumes one epoch too late.
                    f"{name}.save_on_train_epoch_end": False,
                }
            )
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.mode": _MODE_OF_TASK,
                "last.filename": "last",
            }
        )
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        for name in LINKED_OPTIONS:
            parser.link_arguments(f"data.init_args.{name}", f"model.init_args.{name}")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Check what Lightning would find out late, or not at all.

        Raises:
            CheckpointError: If the checkpoint is missing, damaged, unsafe or of another task.
            ConfigError: If there is none where one is needed, or the task is for another command.
        """
        super().parse_arguments(parser, args)
        subcommand = self.config.get("subcommand")
        config = self.config if subcommand is None else self.config[subcommand]
        task = pkgutil.resolve_name(config.model.class_path)
        if config.checkpoint.mode == _MODE_OF_TASK:
            config.checkpoint.mode = task.monitor_mode
        if subcommand is None:
            return
        if subcommand == "predict" and task.predict_step is pl.LightningModule.predict_step:
            raise ConfigError(
                f"seq2seq predict cannot tell what a {task.__name__} is to forecast. Use "
                f"seq2seq-predict --ckpt_path {config.ckpt_path or 'X'} --input series.csv "
                "--horizon N."
            )
        if config.ckpt_path == "best":
            # Lightning would look for that of a training in the same process.
            config.ckpt_path = str(Path(config.run_dir) / "best.ckpt")
        _check_checkpoint(config, subcommand)
        if config.checkpoint.monitor is None:
            config.checkpoint.monitor = task.monitor
        if config.weights_only is None:
            # Lightning would run code that is pickled in a checkpoint behind a URL.
            config.weights_only = True
        if subcommand == "predict" and config.return_predictions is None:
            config.return_predictions = False  # they are in a file, and may not fit into memory
        for callback in config.trainer.callbacks or []:
            if callback.class_path.rpartition(".")[2] == PredictionWriter.__name__:
                raise ConfigError(
                    "--trainer.callbacks has a PredictionWriter, and every run has one already. "
                    "Leave it out, and give its options as --predictions.path and "
                    "--predictions.resume."
                )
            options = callback.get("init_args", {})
            if options.get("check_on_train_epoch_end", True) is None:
                # Going on after a validation, Lightning passes through an end of epoch that has no
                # metrics, where early stopping would look for its own.
                options.check_on_train_epoch_end = False

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Put logs and everything else of a run into its folder, unless told otherwise."""
        run_dir = self._get(self.config, "run_dir")
        options = self._get(self.config_init, "trainer", default={})
        if options.get("default_root_dir") is None:
            kwargs["default_root_dir"] = run_dir
        if options.get("logger") is None:
            kwargs["logger"] = TensorBoardLogger(
                run_dir, name=None, version="", default_hp_metric=False
            )
        kwargs["plugins"] = _with_own_plugins(options.get("plugins"))
        if options.get("logger") is not False:
            self.trainer_defaults["callbacks"].append(LearningRateMonitor(logging_interval="step"))
        return super().instantiate_trainer(**kwargs)

    def before_predict(self) -> None:
        """Refuse to write predictions before the data is made ready for them."""
        writer = self._get(self.config_init, "predictions")
        config = self.config["predict"]
        writer.options = describe_options(config, str(_checkpoint_path(config)))
        writer.check(self.trainer)

    def before_fit(self) -> None:
        """Say whose place this run takes."""
        config = self.config["fit"]
        if config.ckpt_path is None and (Path(config.run_dir) / "best.ckpt").exists():
            rank_zero_info(
                f"{config.run_dir} has the checkpoints of an earlier run, which those of this one "
                "replace. Give each run its own --run_dir; to go on with a run, give --ckpt_path "
                "last."
            )

    def after_fit(self) -> None:
        """Say where the best model lies and how good it is."""
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.best_model_score is not None:
                path = Path(callback.best_model_path)
                here = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
                score = float(callback.best_model_score)
                self.model.print(f"Best {callback.monitor}: {score:.4g}, saved in {here}")


def _with_own_plugins(given: Any) -> list[Any]:
    """Return the trainer's plugins, and those of this project that none of them replaces."""
    plugins = given if isinstance(given, list) else [] if given is None else [given]
    plugins = [*plugins]
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(DurableCheckpointIO())
    if SLURMEnvironment.detect() and not any(
        isinstance(plugin, ClusterEnvironment) for plugin in plugins
    ):
        # Lightning would save where every later run of the folder, of whatever verb, begins. The
        # script of the job puts it into the queue again.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return plugins


def _checkpoint_path(config: Namespace) -> Any:
    """Return the file of the checkpoint, or what else is given for it."""
    is_last = config.ckpt_path == "last"
    return Path(config.run_dir) / "last.ckpt" if is_last else config.ckpt_path


def _check_checkpoint(config: Namespace, subcommand: str) -> None:
    path = _checkpoint_path(config)
    if path is None and subcommand != "fit":
        raise ConfigError(f"seq2seq {subcommand} needs a trained model: give its --ckpt_path.")
    if subcommand == "fit" and config.ckpt_path == "last" and not path.exists():
        return  # a job that is always started with `--ckpt_path last`, for the first time
    # Lightning's own words, and what it fetches itself.
    if path is None or path == "hpc" or "://" in str(path):
        return
    task = read_checkpoint(Path(path))[CHECKPOINT_KEY]["task"]
    model = config.model.class_path.rpartition(".")[2]
    if task != model:
        raise CheckpointError(
            f"{path}: is a checkpoint of the task {task!r}, and --model is {model!r}. "
            "Use the configuration it was trained with."
        )


def build_cli(args: ArgsType = None, *, run: bool = True) -> SequenceCLI:
    """Parse arguments and, with ``run``, carry out the subcommand.

    Args:
        args: Arguments as on the command line, or a dictionary; ``sys.argv`` when None.
        run: False only instantiates.

    Raises:
        ArgumentError: If an option is unknown or has no such value.
        ConfigError: If options do not fit together.
        DataError: If the data cannot be used.
    """
    # Errors are raised, and printed by `main`: argparse would print a page of usage before each.
    raising = {"exit_on_error": False}
    return SequenceCLI(
        pl.LightningModule,
        pl.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        # The optimiser belongs to the task.
        auto_configure_optimizers=False,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={
            "prog": "seq2seq",
            "description": "Train, score and use recurrent sequence-to-sequence models.",
            **raising,
            **dict.fromkeys(SequenceCLI.subcommands(), raising),
        }
        if run
        else raising,
        trainer_defaults={
            "callbacks": [
                SampleLogger(),
                ConfusionLogger(),
                ForecastPlots(),
                Throughput(),
            ],
            # Batch samplers of this project partition by rank themselves.
            "use_distributed_sampler": False,
        },
        args=args,
        run=run,
    )


def _silence() -> None:
    """Keep quiet what is no news to a user, so that what is can be seen."""
    # How Lightning uses torch, that a run's folder already has the run's configuration in it, that
    # a frozen network is frozen, that a test does not average weights, and that Lightning does not
    # gather metrics of several processes, as tasks do that themselves.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message="You're using the WeightAveraging callback")
    warnings.filterwarnings("ignore", message="It is recommended to use .*sync_dist=True")
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
    noise = ("💡", "TPU available", "Loading `train_dataloader`")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not record.getMessage().startswith(noise)
    )


def _is_of_options(error: Exception) -> bool:
    """Return whether it is about an option; jsonargparse has no class for all of these."""
    # The latter of what cannot be made, such as a logger whose package is not installed.
    return isinstance(error, ArgumentError) or (
        isinstance(error, ValueError) and str(error).startswith("Does not validate against")
    )


def main() -> None:
    """Run the command line.

    The exit status is 143 where SIGTERM ended the run, and 2 after an error that the user can
    mend, which is one message on standard error.
    """
    _silence()
    try:
        cli = build_cli()
    except SIGTERMException:
        sys.exit(SIGTERM_STATUS)
    except Exception as error:
        mendable = find_user_error(error)
        if mendable is None and not _is_of_options(error):
            raise
        sys.stderr.write(f"seq2seq: error: {mendable or error}\n")
        sys.exit(2)
    if cli.trainer.received_sigterm:
        sys.exit(SIGTERM_STATUS)


if __name__ == "__main__":
    main()
