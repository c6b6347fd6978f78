"""The fields that matter in the manifests, and that they agree with each other and with the code."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SKY = ("sky-gpu.yaml", "sky-tpu.yaml")
AGAIN = 75


def read(name):
    return yaml.safe_load((LAUNCH / name).read_text())


@pytest.fixture
def jobset():
    return read("kubernetes.yaml")


@pytest.fixture
def job(jobset):
    (workers,) = jobset["spec"]["replicatedJobs"]
    return workers["template"]["spec"]


@pytest.fixture
def container(job):
    (container,) = job["template"]["spec"]["containers"]
    return container


def options(container):
    return dict(word.removeprefix("--").split("=", 1) for word in container["args"] if word.startswith("--"))


def test_every_manifest_is_yaml_and_none_goes_unchecked():
    assert {path.name for path in LAUNCH.glob("*.y*ml")} == {"kubernetes.yaml", *SKY}
    for name in ("kubernetes.yaml", *SKY):
        assert isinstance(read(name), dict)


def test_jobset_has_the_fields_its_definition_knows(jobset):
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert set(jobset["spec"]) <= {"network", "failurePolicy", "replicatedJobs", "successPolicy", "coordinator"}
    assert set(jobset["spec"]["network"]) <= {"enableDNSHostnames", "subdomain", "publishNotReadyAddresses"}
    assert set(jobset["spec"]["failurePolicy"]) <= {"maxRestarts", "restartStrategy", "rules"}
    (workers,) = jobset["spec"]["replicatedJobs"]
    assert set(workers) == {"name", "replicas", "template"}


def test_jobset_starts_as_many_processes_as_it_tells_them(jobset, job, container):
    told = options(container)
    assert int(told["processes"]) == job["parallelism"] == job["completions"] > 1
    assert jobset["spec"]["replicatedJobs"][0]["replicas"] == 1
    assert job["completionMode"] == "Indexed"
    assert told["process"] == "$(JOB_COMPLETION_INDEX)"


def test_jobset_names_its_first_pod_as_the_meeting_place(jobset, container):
    name, network = jobset["metadata"]["name"], jobset["spec"]["network"]
    worker = jobset["spec"]["replicatedJobs"][0]["name"]
    host, port = options(container)["distributed"].split(":")
    assert host == f"{name}-{worker}-0-0.{network['subdomain']}"
    assert network["enableDNSHostnames"] is True
    assert int(port) in [entry["containerPort"] for entry in container["ports"]]


def test_jobset_starts_again_for_a_preemption_as_often_as_it_takes(jobset, job, container):
    rules = job["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"FailJob"}
    conditions = [condition for rule in rules for condition in rule.get("onPodConditions", [])]
    assert conditions == [{"type": "DisruptionTarget", "status": "True"}]
    (codes,) = [rule["onExitCodes"] for rule in rules if "onExitCodes" in rule]
    assert codes == {"containerName": container["name"], "operator": "In", "values": [AGAIN]}
    policy = jobset["spec"]["failurePolicy"]
    (rule,) = policy["rules"]
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    assert policy["maxRestarts"] > 0
    # No pod starts again by itself, and none is restarted while another still saves.
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")
    assert policy["restartStrategy"] == "BlockingRecreate"
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] >= 60


def test_jobset_keeps_data_and_runs_on_a_claim_and_asks_for_gpus(job, container):
    volumes = {volume["name"]: volume for volume in job["template"]["spec"]["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert "persistentVolumeClaim" in mounts["/data"]
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    told = options(container)
    assert told["data.root"].startswith("/data/")
    assert told["run-dir"].startswith("/data/")
    assert container["resources"]["limits"]["nvidia.com/gpu"] >= 1


@pytest.mark.parametrize("name", SKY)
def test_sky_task_is_spot_with_recovery_and_storage(name):
    task = read(name)
    known = {"name", "resources", "num_nodes", "workdir", "file_mounts", "envs", "setup", "run"}
    assert set(task) == known
    resources = task["resources"]
    assert set(resources) <= {"infra", "accelerators", "use_spot", "cpus", "memory", "disk_size", "job_recovery"}
    assert resources["use_spot"] is True
    assert set(resources["job_recovery"]) == {"strategy", "max_restarts_on_errors", "recover_on_exit_codes"}
    assert AGAIN in resources["job_recovery"]["recover_on_exit_codes"]
    assert set(task["file_mounts"]) == {"/data", "/runs"}
    for mount in task["file_mounts"].values():
        assert mount["mode"] == "MOUNT"
        assert ("source" in mount) != ("name" in mount)
    assert task["workdir"] == "."
    assert task["run"].split() == ["bash", "launch/sky.sh", "$EXPERIMENT", "$ARGUMENTS"]
    assert {"EXPERIMENT", "ARGUMENTS", "RUN"} < set(task["envs"])


def extras():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("name", SKY)
def test_sky_task_installs_an_extra_that_there_is(name):
    assert read(name)["envs"]["IVDJAX_EXTRAS"] == {"sky-gpu.yaml": "cuda", "sky-tpu.yaml": "tpu"}[name]
    assert read(name)["envs"]["IVDJAX_EXTRAS"] in extras()


def test_image_has_what_it_copies_and_installs():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    (extra,) = [line.removeprefix("ARG EXTRA=") for line in lines if line.startswith("ARG EXTRA=")]
    assert extra in extras()
    sources = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    allowed = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    assert sorted(sources) == sorted(allowed)
    assert all((ROOT / source).exists() for source in sources)
    assert "COPY launch/challenge-run /challenge/run" in lines
