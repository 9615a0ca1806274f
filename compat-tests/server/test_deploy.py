"""What `deploy/` ships, checked as far as that works without a container engine."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from support.balancer import Balancer
from support.portrait import portrait
from support.ports import free_port
from support.server import BINARY, TOP
from support.wait import wait_until

DEPLOY = TOP / "deploy"
COMPOSE = DEPLOY / "compose"
CHART = DEPLOY / "helm" / "osproxy"
UNIT = DEPLOY / "systemd" / "osproxy.service"
SECRETS = {
    "POSTGRES_PASSWORD": "postgrespassword",
    "OSPROXY_MASTER_KEY": "11" * 32,
    "OSPROXY_ROOT_ACCESS_KEY": "ROOTACCESSKEY0000001",
    "OSPROXY_ROOT_SECRET_KEY": "rootsecretkeyrootsecretkeyrootsecretkey1",
    "STORE_ACCESS_KEY": "STOREACCESSKEY000001",
    "STORE_SECRET_KEY": "storesecretkeystoresecretkeystoresecret1",
}


def tool(name):
    """A program beside the test runner's Python, or on the path; a test that needs it is skipped where it is missing."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"]))
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def run(*words, **options):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120, **options)


def config_check(env, file=None, data_dir="/nonexistent"):
    """The settings in effect with these variables, as `osproxy config check` says them."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OSPROXY_")}
    done = run(BINARY, "config", "check", "--json", *(["--config", file] if file else []), env=inherited | env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- the image ---


def test_the_container_file_passes_the_linter_and_copies_what_is_there():
    file = DEPLOY / "Containerfile"
    done = run(tool("hadolint"), "--failure-threshold", "info", file)
    assert done.returncode == 0, done.stdout
    text = file.read_text()
    assert re.search(r"^USER 65532:65532$", text, re.M) and not re.search(r"^ADD ", text, re.M)
    variables = dict(re.findall(r"(OSPROXY_\w+)=(\S+)", text.split("\nFROM ")[-1]))
    config_check(variables)
    manifest = tomllib.loads((TOP / "Cargo.toml").read_text())
    assert re.search(r"^ARG RUST_VERSION=(.+)$", text, re.M)[1] == manifest["package"]["rust-version"]
    # The binary is stripped where it is built: neither the image it is copied to nor a developer's own build is touched.
    build = text.split("\nFROM ")[1]
    assert build.index("strip /image/usr/local/bin/osproxy") > build.index("install -D -m 0755 target/release/osproxy")
    # The context holds every file that the manifest names: a target that is missing stops the build.
    kept = [line[1:] for line in (TOP / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    targets = [target["path"] for kind in ("bin", "test", "bench") for target in manifest[kind]]
    for path in ["Cargo.toml", "Cargo.lock", "LICENSE", *targets]:
        assert any(path == name or path.startswith(f"{name}/") for name in kept), path
        assert (TOP / path).exists()
    # And every file that a source takes in, but for tests.
    for source in (TOP / "src").rglob("*.rs"):
        code = source.read_text().split("#[cfg(test)]\nmod tests")[0]
        for name in re.findall(r"include(?:_str|_bytes)?!\(\s*\"([^\"]+)\"", code):
            path = (source.parent / name).resolve()
            assert path.exists() and path.is_relative_to(TOP / "src"), f"{name} in {source}"


def test_the_image_is_healthy_while_its_server_serves(own_server):
    text = (DEPLOY / "Containerfile").read_text()
    words = {name: json.loads(found) for name, found in re.findall(r"^\s*(ENTRYPOINT|CMD) (\[.+\])$", text, re.M)}
    [probe] = re.findall(r"^HEALTHCHECK [^\n]*\\\n\s+CMD (\[.+\])$", text, re.M)
    installed, *arguments = json.loads(probe)
    assert words["ENTRYPOINT"] == [installed] and words["CMD"] == ["serve"]
    server = own_server()
    env = os.environ | {"OSPROXY_DATA_DIR": "/nonexistent", "OSPROXY_ADMIN__LISTEN": f"0.0.0.0:{server.admin_port}"}
    assert run(BINARY, *arguments, env=env).returncode == 0
    assert server.stop() == 0
    assert run(BINARY, *arguments, env=env).returncode == 1


# --- compose ---


def compose(name, env):
    """A compose file, parsed against the specification, with its variables filled in from `env` alone."""
    compose_spec = pytest.importorskip("compose_spec")
    text = (COMPOSE / name).read_text()

    def fill(found):
        variable, default, problem = found["name"], found["default"], found["problem"]
        assert variable in env or default is not None, f"{variable} has no value: {problem}"
        return env.get(variable, default)

    filled = re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?(?P<problem>[^}]*))?\}", fill, text)
    document = yaml.safe_load(filled)
    # Anchors are resolved, as an engine does, before the specification is held against it.
    compose_spec.PyOptions().from_yaml(yaml.safe_dump(document, sort_keys=False)).validate()
    return document


def variables(service):
    given = service.get("environment", {})
    return {name: str(value) for name, value in given.items() if name.startswith("OSPROXY_") and value is not None}


def stop_seconds(settings):
    """How long a node may take from the signal to its end, also where its database is down: see the guide."""
    after = 25
    return int(settings["http.drain_delay_seconds"]) + int(settings["http.drain_timeout_seconds"]) + after


def hardened(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    assert service["restart"] == "unless-stopped"


def test_compose_of_one_node():
    document = compose("single.yaml", {})
    node = document["services"]["osproxy"]
    hardened(node)
    settings = config_check(variables(node))
    assert int(node["stop_grace_period"].rstrip("s")) >= stop_seconds(settings)
    named = {name for name in node["environment"] if name.startswith("OSPROXY_")}
    assert {"OSPROXY_ROOT_ACCESS_KEY", "OSPROXY_ROOT_SECRET_KEY"} <= named
    assert node["ports"] == ["127.0.0.1:9000:9000"]
    assert (COMPOSE / node["build"]["context"] / node["build"]["dockerfile"]).resolve() == DEPLOY / "Containerfile"
    [volume] = node["volumes"]
    assert volume == "data:/data" and "data" in document["volumes"]


def test_compose_of_a_cluster():
    document = compose("cluster.yaml", SECRETS)
    services = document["services"]
    nodes = {name: services[name] for name in ("node1", "node2", "node3")}
    for node in nodes.values():
        hardened(node)
        settings = config_check(variables(node) | {"OSPROXY_CONFIG": str(COMPOSE / "cluster.toml")})
        assert settings["meta.url"].strip('"') == "postgres://***"
        assert variables(node)["OSPROXY_REDIS__URL"] == "redis://redis:6379"
        assert settings["redis.url"].strip('"') == "redis://***"
        assert int(node["stop_grace_period"].rstrip("s")) >= stop_seconds(settings)
        assert "postgres" in services and variables(node)["OSPROXY_META__URL"].split("@")[1] == "postgres:5432/osproxy"
        assert set(node["depends_on"]) <= set(services)
    cluster = tomllib.loads((COMPOSE / "cluster.toml").read_text())
    # Names and ports agree across the files.
    assert cluster["backend"]["store"]["options"]["endpoint"] == "http://store:8333"
    assert "-s3.port=8333" in services["store"]["command"]
    assert cluster["notification"]["target"]["stream"]["url"] == "redis://redis:6379" and "redis" in services
    assert f"s3.bucket.create -name {cluster['backend']['store']['options']['bucket']}'" in services["store-bucket"]["command"][0]
    [network] = document["networks"]["default"]["ipam"]["config"]
    assert cluster["s3"]["trusted_proxies"] == [network["subnet"]]
    # The balancer has seen that a node stops before that closes its listener.
    interval, looks = re.search(r"inter (\d+)s fall (\d+)", (COMPOSE / "haproxy.cfg").read_text()).groups()
    assert cluster["http"]["drain_delay_seconds"] > int(interval) * int(looks) + 1
    allowed = int(services["postgres"]["command"][-1].split("=")[1])
    # Each node has up to four more, and commands come beside.
    assert allowed >= len(nodes) * (cluster["meta"]["connections"] + 4) + 10
    for file in ("haproxy.cfg", "nginx.conf"):
        assert set(re.findall(r"(node\d):9000", (COMPOSE / file).read_text())) == set(nodes), file
    # Only the balancer is published, and that on loopback.
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"balancer": ["127.0.0.1:9000:9000"]}
    # Every variable that has no default stands in the example.
    example = (COMPOSE / "cluster.env.example").read_text()
    assert set(re.findall(r"^(\w+)=$", example, re.M)) == set(SECRETS)
    with pytest.raises(AssertionError, match="see cluster.env.example"):
        compose("cluster.yaml", {name: value for name, value in SECRETS.items() if name != "OSPROXY_MASTER_KEY"})


# --- balancers ---


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_balancers_take_their_configuration(kind, tmp_path):
    tool(kind)
    balancer = Balancer(kind, tmp_path, [(free_port(), free_port()) for _ in range(3)])
    done = balancer.check()
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"\[(WARNING|ALERT|warn|emerg)\]", done.stdout + done.stderr), done.stderr


# --- systemd ---


def test_the_unit_is_valid_and_hardened(tmp_path):
    analyze = tool("systemd-analyze")
    # A binary where the unit names one: what is not installed is no fault of the unit.
    unit = tmp_path / "osproxy.service"
    binary = tmp_path / "osproxy"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/osproxy", str(binary)))
    done = run(analyze, "verify", "--man=no", unit)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
    done = run(analyze, "security", "--offline=true", "--threshold=15", "--no-pager", unit)
    assert done.returncode == 0, done.stdout
    settings = config_check({}, DEPLOY / "systemd" / "osproxy.toml")
    text = UNIT.read_text()
    # However long the database is away at boot, the unit does not stay failed.
    assert re.search(r"^Restart=on-failure$", text, re.M) and re.search(r"^StartLimitIntervalSec=0$", text, re.M)
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.M)[1])
    assert stop >= stop_seconds(settings)


def test_the_command_beside_the_unit_has_its_user_its_state_and_its_secrets(own_server, tmp_path):
    """systemd is not there to run it: its properties are held against the unit's, and the rest is run without it."""
    text = UNIT.read_text()
    line = re.search(r"^#   (systemd-run(?:.*\\\n)*.*)$", text, re.M)[1].replace("\\\n#", "")
    words = shlex.split(line)
    start = words.index("/usr/local/bin/osproxy")
    properties = [words[place + 1] for place, word in enumerate(words[:start]) if word == "-p"]
    assert set(properties) <= set(text.splitlines())
    names = {entry.split("=")[0] for entry in properties}
    assert names == {"DynamicUser", "User", "StateDirectory", "StateDirectoryMode", "UMask", "EnvironmentFile"}
    unit = tmp_path / "run-osproxy.service"
    unit.write_text("\n".join(["[Service]", "Type=oneshot", *properties, "ExecStart=/bin/true", ""]))
    done = run(tool("systemd-analyze"), "verify", "--man=no", unit)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
    server = own_server()
    places = {"/etc/osproxy/osproxy.toml": DEPLOY / "systemd" / "osproxy.toml", "/var/lib/osproxy": server.data_dir}
    done = run(BINARY, *[places.get(word, word) for word in words[start + 1 :]])
    assert done.returncode == 0 and server.identity.access_key in done.stdout, done.stderr


def test_the_unit_forbids_no_system_call_that_a_server_makes(own_server, tmp_path):
    """systemd is not there to apply the filter, so the calls of a server at work are held against its lists."""
    analyze, strace = tool("systemd-analyze"), tool("strace")
    allowed = system_calls(analyze, "@system-service")
    for group in ("@privileged", "@resources"):
        allowed -= system_calls(analyze, group)
    trace = tmp_path / "trace"
    # The unit's limit of open files is soft and hard at once, so that the server need not raise it.
    limit = [tool("prlimit"), "--nofile=1024:1024"]
    server = own_server(
        arguments=["--config", DEPLOY / "systemd" / "osproxy.toml"],
        prefix=[*limit, strace, "-f", "-qq", "-o", trace],
    )
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="traced")
    s3.put_object(Bucket="traced", Key="small", Body=b"x")
    s3.put_object(Bucket="traced", Key="large", Body=os.urandom(1_000_000))
    assert len(s3.get_object(Bucket="traced", Key="large")["Body"].read()) == 1_000_000
    s3.delete_object(Bucket="traced", Key="large")
    [child] = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    os.kill(int(child), 15)
    assert server.wait(60) == 0
    called = set(re.findall(r"^\d+\s+(\w+)\(", trace.read_text(), re.M))
    assert {"openat", "accept4", "fdatasync"} & called, sorted(called)
    if os.getuid() == 0:
        called.discard("fchown")  # SQLite gives its files the owner of the database, as root only; the unit is not root
    assert not called - allowed, sorted(called - allowed)


def system_calls(analyze, group):
    """The calls of a group, with the groups inside it."""
    lines = run(analyze, "syscall-filter", "--no-pager", group).stdout.splitlines()[1:]
    names = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    calls = {name for name in names if not name.startswith("@")}
    return calls.union(*(system_calls(analyze, name) for name in names if name.startswith("@")))


# --- the chart ---

CLUSTER = CHART / "examples" / "cluster.yaml"


def rendered(values=None):
    """The chart's objects by (kind, name)."""
    helm = pytest.importorskip("helm_python")
    with helm.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values or {})
        files = chart.render(values or {}, name="objects", namespace="storage")
    documents = [
        document
        for name, text in files.items()
        if name.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def node_of(objects):
    pods = objects["StatefulSet", "objects-osproxy"]["spec"]["template"]["spec"]
    [container] = pods["containers"]
    return pods, container


def configured(objects, tmp_path, secrets=None):
    """The settings that the chart's own configuration and variables come to."""
    _, container = node_of(objects)
    file = tmp_path / "osproxy.toml"
    file.write_text(objects["ConfigMap", "objects-osproxy"]["data"]["osproxy.toml"])
    env = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable} | (secrets or {})
    return config_check(env | {"OSPROXY_CONFIG": str(file)})


def test_the_chart_passes_its_linter():
    helm = pytest.importorskip("helm_python")
    found = helm.lint(str(CHART))
    assert "ERROR" not in json.dumps(found, default=str) and "[WARNING]" not in json.dumps(found, default=str), found


def test_the_chart_makes_one_node_with_a_volume(tmp_path):
    objects = rendered()
    assert {kind for kind, _ in objects} == {"ConfigMap", "Service", "StatefulSet"}
    stateful = objects["StatefulSet", "objects-osproxy"]["spec"]
    assert stateful["replicas"] == 1 and stateful["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    pods, container = node_of(objects)
    assert "envFrom" not in container and [volume["name"] for volume in pods["volumes"]] == ["config"]
    settings = configured(objects, tmp_path)
    assert settings["data_dir"].strip('"').startswith("/data/")


def test_the_chart_makes_a_cluster(tmp_path):
    objects = rendered(yaml.safe_load(CLUSTER.read_text()))
    assert {kind for kind, _ in objects} >= {"PodDisruptionBudget", "Ingress", "NetworkPolicy"}
    stateful = objects["StatefulSet", "objects-osproxy"]["spec"]
    assert stateful["replicas"] == 3 and "volumeClaimTemplates" not in stateful
    pods, container = node_of(objects)
    assert {"name": "data", "emptyDir": {}} in pods["volumes"]
    [spread] = pods["topologySpreadConstraints"]
    selector = stateful["selector"]["matchLabels"]
    assert spread["labelSelector"]["matchLabels"] == selector
    budget = objects["PodDisruptionBudget", "objects-osproxy"]["spec"]
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": selector}}
    assert objects["NetworkPolicy", "objects-osproxy"]["spec"]["podSelector"]["matchLabels"] == selector
    # A route leads to the service, with what ingress-nginx needs to stream.
    ingress = objects["Ingress", "objects-osproxy"]
    [rule] = ingress["spec"]["rules"]
    assert rule["host"] == "objects.example.org" and ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]
    [path] = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": "objects-osproxy", "port": {"name": "s3"}}
    annotations = {name.split("/")[1]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert annotations == {
        "proxy-body-size": "0",
        "proxy-request-buffering": "off",
        "proxy-buffering": "off",
        "proxy-buffer-size": "32k",
        "proxy-next-upstream": "off",
    }


def test_secrets_of_a_chart_are_named_and_not_written(tmp_path):
    """The secret that the head of the values describes, with the example beside it, is a configuration that is taken."""
    objects = rendered(yaml.safe_load(CLUSTER.read_text()))
    assert not any(kind == "Secret" for kind, _ in objects)
    _, container = node_of(objects)
    assert container["envFrom"] == [{"secretRef": {"name": "objects"}}]
    named = set(re.findall(r"--from-literal=(OSPROXY_\w+)=", (CHART / "values.yaml").read_text()))
    given = {
        "OSPROXY_META__URL": "postgres://u:p@h/d",
        "OSPROXY_REDIS__URL": "redis://h:6379",
        "OSPROXY_MASTER_KEY": SECRETS["OSPROXY_MASTER_KEY"],
        "OSPROXY_ROOT_ACCESS_KEY": SECRETS["OSPROXY_ROOT_ACCESS_KEY"],
        "OSPROXY_ROOT_SECRET_KEY": SECRETS["OSPROXY_ROOT_SECRET_KEY"],
        "OSPROXY_BACKEND__STORE__OPTIONS__ACCESS_KEY_ID": SECRETS["STORE_ACCESS_KEY"],
        "OSPROXY_BACKEND__STORE__OPTIONS__SECRET_ACCESS_KEY": SECRETS["STORE_SECRET_KEY"],
    }
    assert named == set(given)
    assert not named & {variable["name"] for variable in container["env"] if "value" in variable}
    settings = configured(objects, tmp_path, given)
    assert settings["storage.placement"].strip('"') == "store"
    assert settings["backend.store.options.secret_access_key"].strip('"') == "***"


def referred(values):
    """The secrets that variables of a node are taken from, by the variable's name."""
    _, container = node_of(rendered(values))
    names = [variable["name"] for variable in container["env"]]
    assert len(names) == len(set(names)), names
    return {v["name"]: v["valueFrom"]["secretKeyRef"] for v in container["env"] if "valueFrom" in v}


def test_a_cluster_does_not_start_without_its_database_and_its_master_key():
    """`envFrom` takes what there is. What a cluster cannot do without is named, so that a pod without it is not started."""
    needed = {"OSPROXY_META__URL", "OSPROXY_MASTER_KEY"}
    values = yaml.safe_load(CLUSTER.read_text())
    assert referred(values) == {name: {"name": "objects", "key": name, "optional": False} for name in needed}
    assert referred({}) == {}
    # A database's own secret, as its operator makes it.
    other = {"name": "database", "key": "uri"}
    values["env"] = [{"name": "OSPROXY_META__URL", "valueFrom": {"secretKeyRef": other}}]
    assert referred(values)["OSPROXY_META__URL"] == other and set(referred(values)) == needed


ONE_BACKEND = """
[storage]
placement = 'store'         # an S3 service
[backend.store]
service = "s3"
[backend.store.options]
bucket = "b"
endpoint = "http://s"
region = "r"
"""
ANOTHER_LOCAL = ONE_BACKEND.replace("placement = 'store'", "inline_max_bytes = 0").replace("backend.store", "backend.local")
SHARED = {"cluster": True, "existingSecret": "objects"}
PLACED = {"env": [{"name": "OSPROXY_STORAGE__PLACEMENT", "value": "store"}]}


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({}, id="one node"),
        pytest.param({"image": {"repository": "registry.example/osproxy"}}, id="an image of one's own"),
        pytest.param(yaml.safe_load(CLUSTER.read_text()), id="the example"),
        pytest.param(SHARED | {"replicaCount": 3, "config": ONE_BACKEND}, id="another backend"),
        pytest.param(SHARED | {"config": ANOTHER_LOCAL}, id="a service as local"),
        pytest.param(SHARED | {"config": ONE_BACKEND.replace("placement", "#")} | PLACED, id="by a variable"),
        pytest.param(SHARED | {"config": "storage.placement = 'store'\n" + ONE_BACKEND.split("\n", 3)[3]}, id="dotted"),
        pytest.param({"config": "[http]\ndrain_timeout_seconds = 35", "drainDelaySeconds": 10}, id="longer"),
    ],
)
def test_the_charts_nodes_are_confined_probed_and_given_their_time(values, tmp_path):
    objects = rendered(values)
    pods, container = node_of(objects)
    # Confined: the user of the image, without rights, on a root that is read only and a volume for its data.
    assert pods["automountServiceAccountToken"] is False
    user = int(re.search(r"^USER (\d+):", (DEPLOY / "Containerfile").read_text(), re.M)[1])
    confined = pods["securityContext"]
    assert confined["runAsNonRoot"] and confined["runAsUser"] == confined["runAsGroup"] == confined["fsGroup"] == user
    assert confined["seccompProfile"]["type"] == "RuntimeDefault"
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    claimed = objects["StatefulSet", "objects-osproxy"]["spec"].get("volumeClaimTemplates", [])
    assert set(mounts) == {v["name"] for v in pods["volumes"]} | {claim["metadata"]["name"] for claim in claimed}
    assert mounts["config"]["readOnly"] and mounts["data"]["mountPath"] == "/data"
    assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]
    # Probed: a step of the schema may take an hour, and a node that drains is out of the service before it closes.
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = {name: container[f"{name}Probe"] for name in ("liveness", "readiness", "startup")}
    paths = {name: probe["httpGet"]["path"] for name, probe in probes.items()}
    assert paths == {"liveness": "/healthz", "readiness": "/readyz", "startup": "/healthz"}
    assert {probe["httpGet"]["port"] for probe in probes.values()} == {"admin"}
    patience = {name: probe["periodSeconds"] * probe["failureThreshold"] for name, probe in probes.items()}
    assert patience["startup"] > 3600
    for (kind, _), document in objects.items():
        if kind == "Service":
            assert {port["targetPort"] for port in document["spec"]["ports"]} <= set(ports)
            selector = document["spec"]["selector"].items()
            assert selector <= objects["StatefulSet", "objects-osproxy"]["spec"]["template"]["metadata"]["labels"].items()
    assert (("PodDisruptionBudget", "objects-osproxy") in objects) == values.get("cluster", False)
    # Given its time, and a configuration that a server takes.
    secrets = {"OSPROXY_META__URL": "postgres://u:p@h/d"} if values.get("cluster") else {}
    settings = configured(objects, tmp_path, secrets)
    assert settings["s3.listen"].strip('"').endswith(f":{ports['s3']}")
    assert settings["admin.listen"].strip('"').endswith(f":{ports['admin']}")
    assert int(settings["http.drain_delay_seconds"]) > patience["readiness"]
    assert pods["terminationGracePeriodSeconds"] >= stop_seconds(settings)


FEW = {"cluster": True, "existingSecret": "x", "replicaCount": 3}
ON_VOLUME = "would be on a volume that goes with its node"


@pytest.mark.parametrize(
    "values, problem",
    [
        ({"replicaCount": 2}, "replicaCount"),
        ({"cluster": True}, "existingSecret"),
        ({"ingress": {"enabled": True}}, "ingress.host"),
        ({"replicas": 3}, "replicas"),
        ({"replicaCount": "3"}, "replicaCount"),
        (FEW, f'config: blobs at "local" {ON_VOLUME}'),
        (FEW | {"config": "[storage]\nplacement = 'local'"}, ON_VOLUME),
        (FEW | {"config": "# [storage]\n# placement = 'store'"}, ON_VOLUME),
        (FEW | {"config": "[tenant]\nplacement = 'store'"}, ON_VOLUME),
        (FEW | {"config": ONE_BACKEND.replace('"s3"', '"fs"')}, f'config: blobs at "store" {ON_VOLUME}'),
        (FEW | {"config": ONE_BACKEND, "env": [{"name": "OSPROXY_STORAGE__PLACEMENT", "value": "local"}]}, ON_VOLUME),
        ({"terminationGracePeriodSeconds": 49}, "terminationGracePeriodSeconds: expected at least 50"),
        ({"drainDelaySeconds": 30}, "terminationGracePeriodSeconds: expected at least 75"),
        ({"config": "[http]\ndrain_timeout_seconds = 60 # s"}, "terminationGracePeriodSeconds: expected at least 80"),
        ({"env": [{"name": "OSPROXY_HTTP__DRAIN_TIMEOUT_SECONDS", "value": "90"}]}, "expected at least 110"),
    ],
)
def test_the_chart_refuses_what_would_not_work(values, problem):
    helm = pytest.importorskip("helm_python")
    with pytest.raises(helm.HelmError, match=re.escape(problem)):
        rendered(values)


# --- the cluster of the compose file, as plain processes ---


@pytest.fixture
def cluster(postgres, redis, own_server, tmp_path):
    """Three nodes, their store and HAProxy, from the files of deploy/compose with other addresses."""
    store = own_server("store")
    store.endpoint.client().create_bucket(Bucket="osproxy")
    text = (COMPOSE / "cluster.toml").read_text()
    for there, here in {
        '"http://store:8333"': f'"{store.endpoint.url}"',
        '"redis://redis:6379"': f'"{redis.url}"',
        '"172.29.9.0/24"': '"127.0.0.1/32"',
    }.items():
        assert there in text, there
        text = text.replace(there, here)
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    env = {
        "OSPROXY_CONFIG": str(file),
        "OSPROXY_META__URL": postgres.create(),
        "OSPROXY_REDIS__URL": redis.url,
        "OSPROXY_MASTER_KEY": SECRETS["OSPROXY_MASTER_KEY"],
        "OSPROXY_BACKEND__STORE__OPTIONS__ACCESS_KEY_ID": store.identity.access_key,
        "OSPROXY_BACKEND__STORE__OPTIONS__SECRET_ACCESS_KEY": store.identity.secret_key,
        # Everything reaches the store.
        "OSPROXY_STORAGE__INLINE_MAX_BYTES": "0",
    }
    ports = {f"node{number}": (free_port(), free_port()) for number in (1, 2, 3)}
    nodes = {name: own_server(name, env=env, ports=ports[name]) for name in ports}
    tool("haproxy")
    with Balancer("haproxy", tmp_path, ports.values()) as balancer:
        yield nodes, balancer, redis


def test_the_cluster_serves_through_its_balancer_while_nodes_come_and_go(cluster, rng, pool):
    nodes, balancer, redis = cluster
    for name, node in nodes.items():
        wait_until(lambda: node.metric("osproxy_redis_connected") == 1, 30, f"hints of {name}")
    endpoint = nodes["node1"].endpoint.at(balancer.url)
    s3 = endpoint.client(retries={"total_max_attempts": 1})
    s3.create_bucket(Bucket="bucket")
    s3.put_bucket_notification_configuration(
        Bucket="bucket",
        NotificationConfiguration={
            "TopicConfigurations": [
                {"TopicArn": "arn:aws:sns:us-east-1:default:stream", "Events": ["s3:ObjectCreated:*"]}
            ]
        },
    )
    bodies = {f"key{number}": rng.randbytes(100_000 + number) for number in range(45)}
    written = {}

    def put(key):
        written[key] = s3.put_object(Bucket="bucket", Key=key, Body=bodies[key])["ETag"]

    # One node after the other is drained and started again: no request fails.
    futures = []
    for name, node in nodes.items():
        futures += [pool.submit(put, f"key{number}") for number in range(len(futures), len(futures) + 5)]
        assert node.stop() == 0
        futures += [pool.submit(put, f"key{number}") for number in range(len(futures), len(futures) + 5)]
        node.start()
        futures += [pool.submit(put, f"key{number}") for number in range(len(futures), len(futures) + 5)]
    for future in futures:
        future.result(60)
    assert set(written) == set(bodies)
    for key, body in bodies.items():
        assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == body
    # Each node by itself sees the same.
    seen = [portrait(node.endpoint.client()) for node in nodes.values()]
    assert seen[0] == seen[1] == seen[2]
    wait_until(lambda: int(redis.command("XLEN", "osproxy-events")) >= len(bodies), 30, "the events in Redis")
