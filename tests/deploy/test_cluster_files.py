"""cluster.yaml and its variants: valid for Ray and KubeRay, drained on notices, closed."""

import functools
import json
import operator
import re
from typing import Any

import boto3
import jsonschema
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.util import prepare_config, validate_config

from job.settings.cli import parse, parser
from job.settings.config import Config, ScalingSettings
from tests.test_house import ROOT
from tools.local_cluster import FAST_HEALTH_CHECK

RAY_UP = ["cluster.yaml", "deploy/cluster-gcp.yaml"]
KUBERAY = ["deploy/kuberay-cluster.yaml", "deploy/kuberay-job.yaml"]
FILES = [*RAY_UP, *KUBERAY, "deploy/aws.yaml"]
SCHEMA = yaml.safe_load((ROOT / "tests/deploy/kuberay_schema.yaml").read_text())


class _Template(yaml.SafeLoader):
    """CloudFormation's YAML: `!Ref X` as {"Ref": "X"}."""


_Template.add_multi_constructor("!", lambda loader, tag, node: {tag: loader.construct_scalar(node)})


def read_all(name: str) -> list[dict[str, Any]]:
    return list(yaml.load_all((ROOT / name).read_text(), Loader=_Template))


def read(name: str) -> dict[str, Any]:
    """The file, of several documents the last one."""
    return read_all(name)[-1]


def preset() -> Config:
    presets = (
        part for name in ("base", "cluster") for part in ("--config", f"job/presets/{name}.yaml")
    )
    return parse(parser("test", ""), list(presets))[0]


def scaling() -> ScalingSettings:
    return preset().scaling


def node_types(name: str) -> dict[str, tuple[dict[str, float], int]]:
    """Resources and fewest nodes of each type; of Ray's files and of KubeRay's alike."""
    config = read(name)
    if "available_node_types" in config:
        return {
            n: (t["resources"], t.get("min_workers", 0))
            for n, t in config["available_node_types"].items()
        }
    found = {}
    for group in [config["spec"]["headGroupSpec"], *config["spec"]["workerGroupSpecs"]]:
        start = group["rayStartParams"]
        own = json.loads(json.loads(start.get("resources", '"{}"')))
        gpus = {"GPU": int(start["num-gpus"])} if "num-gpus" in start else {}
        found[group.get("groupName", "head")] = (
            {"CPU": int(start["num-cpus"])} | gpus | own,
            group.get("minReplicas", 0),
        )
    return found


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_takes_it(name):
    config = prepare_config(read(name))
    validate_config(config)
    assert config["head_node_type"] == "head"
    # not Ray's defaults, which install a Ray
    assert config["setup_commands"] == config["head_setup_commands"] == []
    assert 1 <= config["idle_timeout_minutes"] <= 10
    for local in config["file_mounts"].values():
        assert (ROOT / local).is_file()


@pytest.mark.parametrize(
    ("where", "mistake", "told"),
    [
        ((), {"idle_timeout": 5}, "idle_timeout"),
        ((), {"head_node_type": "haed"}, "head_node_type"),
        (("available_node_types", "data"), {"min_workers": 9}, "min_workers"),
        (("available_node_types", "data"), {"resources": {"CPU": "8"}}, "'8'"),
    ],
)
@pytest.mark.parametrize("name", RAY_UP)
def test_ray_would_refuse_a_mistake(name, where, mistake, told):
    config = read(name)
    functools.reduce(operator.getitem, where, config).update(mistake)
    with pytest.raises(Exception, match=told):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_takes_it(name):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(read(name), SCHEMA)


def test_kuberay_would_refuse_a_mistake():
    cluster = read("deploy/kuberay-cluster.yaml")
    del cluster["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["image"]
    job = read("deploy/kuberay-job.yaml")
    job["spec"]["entryPoint"] = job["spec"].pop("entrypoint")
    for broken in (cluster, job):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)


@pytest.mark.parametrize("name", [*RAY_UP, "deploy/kuberay-cluster.yaml"])
def test_loaders_and_workers_keep_apart_and_nothing_runs_where_no_job_is(name):
    types, wanted = node_types(name), scaling()
    worker = {"CPU": wanted.cpus_per_worker, "GPU": 1, **wanted.worker_resources}
    loader = {"CPU": 1, **wanted.loader_resources}

    def homes(task: dict[str, float]) -> set[str]:
        return {
            n
            for n, (has, _) in types.items()
            if all(has.get(r, 0) >= amount for r, amount in task.items())
        }

    assert homes(loader) == {"data"}
    assert homes(worker) == {n for n in types if n.startswith("gpu")} != set()
    assert types["head"][0]["CPU"] == 0
    assert {fewest for _, fewest in types.values()} == {0}
    # the worker takes all that Ray knows of: no task of Ray Data's fits beside it
    for gpu in homes(worker):
        assert types[gpu][0]["CPU"] == worker["CPU"]


def test_a_cluster_can_hold_the_presets_run():
    _, most = scaling().bounds
    for name in [*RAY_UP, "deploy/kuberay-cluster.yaml"]:
        config = read(name)
        types = config.get("available_node_types", {})
        groups = config.get("spec", {}).get("workerGroupSpecs", [])
        sizes = {n: t["max_workers"] for n, t in types.items()} | {
            g["groupName"]: g["maxReplicas"] for g in groups
        }
        assert all(size >= most for n, size in sizes.items() if n.startswith("gpu"))
        assert config.get("max_workers", 99) >= most + sizes["data"]


@pytest.mark.parametrize("name", [*RAY_UP, "deploy/kuberay-cluster.yaml"])
def test_one_data_node_takes_the_presets_loaders(name):
    has, wanted = node_types(name)["data"][0], preset()
    assert {has["CPU"], has["data"] / wanted.scaling.loader_resources["data"]} == {
        wanted.data.loaders
    }


@pytest.mark.parametrize("name", RAY_UP)
def test_the_fall_back_comes_second(name):
    types = read(name)["available_node_types"]
    first, second = types["gpu-spot"], types["gpu-fallback"]
    assert first["priority"] > second["priority"]
    assert first["resources"] == second["resources"]
    key = "InstanceType" if name == "cluster.yaml" else "machineType"
    assert first["node_config"][key] != second["node_config"][key]
    spot = json.dumps(first["node_config"]).lower()
    assert '"markettype": "spot"' in spot or '"provisioningmodel": "spot"' in spot


@pytest.mark.parametrize("name", RAY_UP)
def test_dead_nodes_are_noticed_and_notices_become_drains(name):
    config = read(name)
    head, worker = (
        "\n".join(config["head_start_ray_commands"]),
        "\n".join(config["worker_start_ray_commands"]),
    )
    for variable, value in FAST_HEALTH_CHECK.items():
        if "initial_delay" not in variable:  # a machine in a cloud takes longer to start
            assert f"{variable}={value}" in head
    assert "nohup python -m job.spot" in worker
    assert worker.index("ray start") < worker.index("job.spot")
    assert "job.spot" not in head


def test_kuberay_drains_before_a_pod_goes():
    cluster = read("deploy/kuberay-cluster.yaml")["spec"]
    variables = {
        e["name"]: e["value"]
        for e in cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert (
        variables.items()
        >= {v: FAST_HEALTH_CHECK[v] for v in FAST_HEALTH_CHECK if "initial" not in v}.items()
    )
    pod = next(g for g in cluster["workerGroupSpecs"] if g["groupName"] == "gpu")["template"][
        "spec"
    ]
    command = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command[1].endswith("spot.py")
    assert "--now" in command
    assert pod["terminationGracePeriodSeconds"] > int(command[command.index("--term-grace-s") + 1])


def test_the_pods_account_is_made_with_them():
    account, cluster = read_all("deploy/kuberay-cluster.yaml")
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    assert account["kind"] == "ServiceAccount"
    assert {group["template"]["spec"]["serviceAccountName"] for group in groups} == {
        account["metadata"]["name"]
    }


@pytest.mark.parametrize("name", RAY_UP)
def test_the_dashboard_listens_on_loopback(name):
    starts = [c for c in read(name)["head_start_ray_commands"] if "--head" in c]
    assert len(starts) == 1
    assert "--dashboard-host=127.0.0.1" in starts[0]


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_open_to_the_world_and_no_secret_stands_there(name):
    # words of the file itself, comments apart; pods must listen on their own address
    text = re.sub(r"\s#.*|^#.*", "", (ROOT / name).read_text(), flags=re.MULTILINE)
    assert not re.search(r"0\.0\.0\.0/0|::/0|LoadBalancer|NodePort|privileged", text)
    assert not re.search(r"AKIA|aws_secret|-----BEGIN|password:", text)
    if name in RAY_UP:
        assert "0.0.0.0" not in text


@pytest.mark.medium
@pytest.mark.parametrize("explicit", [True, False])
def test_what_ray_up_opens_on_aws(explicit, monkeypatch, tmp_path):
    """Ray's preparation against moto's EC2: without our group, it opens port 22 to the world."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes the key pair there
    with mock_aws():
        config = prepare_config(read("cluster.yaml"))
        ec2 = boto3.resource("ec2", config["provider"]["region"])
        network = next(iter(ec2.vpcs.all())).id
        group = ec2.create_security_group(GroupName="ours", Description="ours", VpcId=network)
        for node_type in config["available_node_types"].values():
            assert node_type["node_config"].pop("SecurityGroupIds")[0].startswith("sg-")
            if explicit:
                node_type["node_config"]["SecurityGroupIds"] = [group.id]
        prepared = bootstrap_aws(config)
        used = {
            i
            for t in prepared["available_node_types"].values()
            for i in t["node_config"]["SecurityGroupIds"]
        }
        rules = [rule for one in used for rule in ec2.SecurityGroup(one).ip_permissions]
        assert bool(rules) != explicit
        assert ("0.0.0.0/0" in str(rules)) != explicit
        assert not explicit or used == {group.id}


def test_every_gcp_machine_is_in_the_own_network():
    types = read("deploy/cluster-gcp.yaml")["available_node_types"]
    nets = {t["node_config"]["networkInterfaces"][0]["subnetwork"] for t in types.values()}
    assert len(nets) == 1
    assert not nets.pop().endswith("/default")


def test_the_aws_template_opens_ssh_to_one_address_and_has_what_cluster_yaml_names():
    template, cluster = read("deploy/aws.yaml"), read("cluster.yaml")
    resources = template["Resources"]
    rules = resources["SecurityGroup"]["Properties"]["SecurityGroupIngress"]
    assert [(rule["FromPort"], rule["ToPort"], rule["CidrIp"]) for rule in rules] == [
        (22, 22, {"Ref": "SshFrom"})
    ]
    others = [
        r["Properties"] for r in resources.values() if r["Type"] == "AWS::EC2::SecurityGroupIngress"
    ]
    assert all("SourceSecurityGroupId" in rule and "CidrIp" not in rule for rule in others)
    one = re.compile(template["Parameters"]["SshFrom"]["AllowedPattern"])
    assert one.search("203.0.113.7/32")
    assert not any(one.search(a) for a in ("0.0.0.0/0", "10.0.0.0/8", "203.0.113.7", "::/0"))
    made = {r["Properties"].get("InstanceProfileName") for r in resources.values()}
    types = cluster["available_node_types"].values()
    assert {t["node_config"]["IamInstanceProfile"]["Name"] for t in types} <= made
    ending = next(
        s
        for s in resources["HeadRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
        if "ec2:TerminateInstances" in s["Action"]
    )
    assert cluster["cluster_name"] in ending["Condition"]["StringEquals"].values()
    assert resources["Bucket"]["DeletionPolicy"] == "Retain"
