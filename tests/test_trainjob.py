"""The manifest for Kubeflow Trainer fits the schema of its kind, and the command line it calls."""

import copy
from pathlib import Path

import pytest
import yaml
from command_line import QUICKSTART, seq2seq
from jsonschema import Draft202012Validator, ValidationError

MANIFEST = Path(__file__).parents[1] / "configs/cluster/trainjob.yaml"
SCHEMA = Path(__file__).parent / "data/trainjob_schema.yaml"


@pytest.fixture(scope="module")
def validate():
    schema = yaml.safe_load(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema).validate


@pytest.fixture
def volume_claim():
    return next(yaml.safe_load_all(MANIFEST.read_text()))


@pytest.fixture
def job():
    return list(yaml.safe_load_all(MANIFEST.read_text()))[1]


@pytest.fixture
def pod(job):
    (patch,) = job["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return node["template"]["spec"]["template"]["spec"]


def test_the_manifest_fits_the_schema(validate, job):
    validate(job)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec.pop("runtimeRef"), "'runtimeRef' is a required property"),
        (lambda spec: spec["trainer"].update(numNodes="2"), "'2' is not of type 'integer'"),
        (lambda spec: spec["trainer"].update(numGpus=4), "'numGpus' was unexpected"),
        (lambda spec: spec["trainer"]["args"].append(1), "1 is not of type 'string'"),
        # What 2.0 and 2.1 called it.
        (lambda spec: spec.update(podTemplateOverrides=[]), "'podTemplateOverrides' was unexp"),
    ],
)
def test_the_schema_refuses_what_the_cluster_would(validate, job, change, message):
    changed = copy.deepcopy(job)
    change(changed["spec"])
    with pytest.raises(ValidationError, match=message):
        validate(changed)


def test_what_is_mounted_exists(volume_claim, pod):
    assert volume_claim["kind"] == "PersistentVolumeClaim"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    (container,) = pod["containers"]
    assert [mount["name"] for mount in container["volumeMounts"]] == list(volumes)
    claim = volumes["volume"]["persistentVolumeClaim"]["claimName"]
    assert claim == volume_claim["metadata"]["name"]
    # Where several machines mount it.
    assert volume_claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_what_a_restart_needs_lies_in_the_volume(job, pod):
    (container,) = pod["containers"]
    root = container["volumeMounts"][0]["mountPath"]
    options = dict(arg.split("=", 1) for arg in job["spec"]["trainer"]["args"][1:])
    for option in ("--config", "--data.root", "--run_dir"):
        assert options[option].startswith(f"{root}/")
    assert options["--ckpt_path"] == "last"


def test_the_arguments_are_those_of_the_command_line(job, tmp_path):
    trainer = job["spec"]["trainer"]
    assert trainer["command"][-2:] == ["-m", "seq2seq"]
    verb, recipe, *options = trainer["args"]
    # Recipes of the project stand for that in the volume.
    recipe = QUICKSTART.parent / "translation" / Path(recipe).name
    done = seq2seq(tmp_path, verb, f"--config={recipe}", *options, "--print_config")
    assert done.status == 0, done.errors
    printed = yaml.safe_load(done.output)["trainer"]
    assert printed["num_nodes"] == trainer["numNodes"]
    gpus = trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"]
    assert printed["devices"] == str(trainer["numProcPerNode"]) == gpus
