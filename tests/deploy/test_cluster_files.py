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
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from benchmarks import shipped
from benchmarks.padding import plan, synthetic
from benchmarks.scaling import SIGMA, costs
from benchmarks.scaling import shipped as shipped_speed_ups
from data.settings.plan import PlanConfig
from job.settings.cli import config_of
from job.settings.config import Config, ScalingSettings
from tests.test_house import ROOT
from tools.local_cluster import FAST_HEALTH_CHECK

FILES_OF_CLUSTERS = shipped.FILES
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
    return config_of(list(presets))


def pods(name: str) -> dict[str, dict[str, Any]]:
    """Pods of a manifest of KubeRay, by group."""
    spec = read(name)["spec"]
    spec = spec.get("rayClusterSpec", spec)
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return {group.get("groupName", "head"): group["template"]["spec"] for group in groups}


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
    mounts = config["file_mounts"]
    options = config["docker"]["run_options"]
    assert "--env RAY_AUTH_MODE=token" in options
    (token,) = [o.partition("RAY_AUTH_TOKEN_PATH=")[2] for o in options if "TOKEN_PATH" in o]
    assert mounts.pop(token) == "~/.ray/auth_token"  # where Ray's command writes it
    for local in mounts.values():
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


def test_kuberay_gives_all_pods_the_token():
    cluster = read("deploy/kuberay-cluster.yaml")
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    cluster["spec"]["authOptions"]["mode"] = "tokens"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster, SCHEMA)
    installed = re.search(
        r"kuberay-operator --version (\S+)", (ROOT / "docs/cluster.md").read_text()
    )
    assert installed is not None
    assert tuple(map(int, installed[1].split("."))) >= (1, 5, 1)  # has authOptions


def test_the_jobs_own_cluster_is_the_cluster():
    assert (
        read("deploy/kuberay-job.yaml")["spec"]["rayClusterSpec"]
        == read("deploy/kuberay-cluster.yaml")["spec"]
    )
    assert read("deploy/kuberay-job.yaml")["spec"]["backoffLimit"] > 0


def test_kuberay_takes_the_variant_with_a_redis():
    variant = read("deploy/kustomization.yaml")
    assert variant["resources"] == ["kuberay-cluster.yaml"]
    (patch,) = [read(f"deploy/{each['path']}") for each in variant["patches"]]
    cluster = read("deploy/kuberay-cluster.yaml")
    assert patch["metadata"] == cluster["metadata"]
    cluster["spec"] |= patch["spec"]
    jsonschema.validate(cluster, SCHEMA)


# vCPUs and GiB of the machines that the manifests name
SIZES = {
    "m6i.xlarge": (4, 16),
    "m6i.2xlarge": (8, 32),
    "g6.12xlarge": (48, 192),
    "g6.2xlarge": (8, 32),
}


def test_pods_fit_the_machines_that_they_name():
    """Beside what Kubernetes keeps, and pods of its own: half a CPU, an eighth of the memory."""
    sidecar = read("deploy/kuberay-cluster.yaml")["spec"]["autoscalerOptions"]["resources"]
    for group, pod in pods("deploy/kuberay-cluster.yaml").items():
        cpus, memory = SIZES[pod["nodeSelector"]["node.kubernetes.io/instance-type"]]
        wanted = [pod["containers"][0]["resources"]["requests"]]
        if group == "head":
            wanted.append(sidecar["requests"])
        milli = sum(
            int(r["cpu"][:-1]) if r["cpu"].endswith("m") else 1000 * int(r["cpu"]) for r in wanted
        )
        assert milli <= 1000 * cpus - 500
        assert sum(int(r["memory"].removesuffix("Gi")) for r in wanted) <= 7 / 8 * memory


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
    # the workers take all that Ray knows of: no task of Ray Data's fits beside them
    for gpu in homes(worker):
        assert types[gpu][0]["CPU"] == types[gpu][0]["GPU"] * worker["CPU"]
        assert types[gpu][0]["trainer"] == types[gpu][0]["GPU"]


def test_a_cluster_can_hold_the_presets_run():
    _, most = scaling().bounds
    for name in [*RAY_UP, "deploy/kuberay-cluster.yaml"]:
        config = read(name)
        types = config.get("available_node_types", {})
        groups = config.get("spec", {}).get("workerGroupSpecs", [])
        sizes = {n: t["max_workers"] for n, t in types.items()} | {
            g["groupName"]: g["maxReplicas"] for g in groups
        }
        gpus = {n: size * node_types(name)[n][0]["GPU"] for n, size in sizes.items() if "gpu" in n}
        assert len(gpus) == 2
        assert all(count >= most for count in gpus.values())
        assert config.get("max_workers", 99) >= most + sizes["data"]


@pytest.mark.parametrize("name", [*RAY_UP, "deploy/kuberay-cluster.yaml"])
def test_one_data_node_takes_the_presets_loaders(name):
    has, wanted = node_types(name)["data"][0], preset()
    assert {has["CPU"], has["data"] / wanted.scaling.loader_resources["data"]} == {
        wanted.data.loaders
    }


@pytest.mark.parametrize("name", FILES_OF_CLUSTERS)
def test_many_gpus_in_a_node_come_first_and_single_ones_of_the_same_kind_second(name):
    first, second = shipped.choices(name)
    assert (first.gpus, second.gpus) == (4, 1)
    assert first.machine[:2] == second.machine[:2]
    types = node_types(name)
    assert types[first.name][0]["GPU"] == first.gpus
    assert types[second.name][0]["GPU"] == second.gpus


@pytest.mark.parametrize("name", RAY_UP)
def test_gpus_are_spot_machines_of_one_zone(name):
    config = read(name)
    assert "," not in config["provider"]["availability_zone"]
    for kind in ("gpu-spot", "gpu-fallback"):
        node = json.dumps(config["available_node_types"][kind]["node_config"]).lower()
        assert '"markettype": "spot"' in node or '"provisioningmodel": "spot"' in node


@pytest.mark.parametrize("name", RAY_UP)
@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        (1, {"gpu-fallback": 1}),
        (2, {"gpu-fallback": 2}),
        (3, {"gpu-spot": 1}),
        (4, {"gpu-spot": 1}),
    ],
)
def test_rays_autoscaler_starts_the_node_of_many_gpus_for_many_workers(name, workers, expected):
    """Ray's own scheduler, with nothing but the file's node types."""
    config = read(name)
    types = {
        n: NodeTypeConfig(
            n,
            t["min_workers"],
            t["max_workers"],
            priority=t.get("priority", 0),
            resources=t["resources"],
        )
        for n, t in config["available_node_types"].items()
        if n != "head"
    }
    worker = {"CPU": 1.0, "GPU": 1.0, **scaling().worker_resources}
    asked = [ResourceRequestUtil.make(worker)] * workers
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=types,
        max_num_nodes=config["max_workers"],
        resource_requests=ResourceRequestUtil.group_by_count(asked),
    )
    reply = ResourceDemandScheduler().schedule(request)
    assert {own.instance_type: own.count for own in reply.to_launch} == expected


def test_four_gpus_of_each_file_are_worth_their_price(capsys):
    """By the model of benchmarks.scaling, with the preset's G."""
    settings = PlanConfig().settled()
    frames, tokens = synthetic(SIGMA, 20_000)
    cost = costs(plan(frames, tokens, 0, settings), frames, settings.cost, settings.pad_to.frames)
    found = shipped_speed_ups(0.25, cost)
    with capsys.disabled():
        for file, own in found["shipped"].items():
            last = {
                kind: round(value, 2) for kind, value in found["shipped_fallback"][file].items()
            }
            told = ", ".join(f"{kind} {value:.2f}" for kind, value in own.items())
            print(f"\n{file}: four GPUs are {told} times one; on the fall-back {last}")
    assert set(found["shipped"]) == set(FILES_OF_CLUSTERS)
    for file, own in found["shipped"].items():
        assert 3.2 <= own["exact"] <= own["fast"] <= 4
        assert own["exact"] > found["shipped_fallback"][file]["exact"]
        for kind, of in found["costs"][file].items():
            assert (of["several_zones"] == of["one_zone"]) == (
                node_types(file)[kind][0]["GPU"] == 4
            )


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
    assert cluster["autoscalerOptions"]["version"] == "v2"
    for group in ("gpu", "gpu-fallback"):
        pod = pods("deploy/kuberay-cluster.yaml")[group]
        command = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert command[1].endswith("spot.py")
        assert "--now" in command
        grace = int(command[command.index("--term-grace-s") + 1])
        assert pod["terminationGracePeriodSeconds"] > grace


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
    assert {"Ref": "ClusterName"} in ending["Condition"]["StringEquals"].values()
    assert template["Parameters"]["ClusterName"]["Default"] == cluster["cluster_name"]
    assert resources["Bucket"]["DeletionPolicy"] == "Retain"
