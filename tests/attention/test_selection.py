"""Which platform and which backend run, and what is refused by name."""

import pytest
import torch

from outrider.attention import backends as package
from outrider.attention.base import AttentionBackend
from outrider.attention.caches.paged import PagedSpec
from outrider.attention.caches.paged_kv import PagedKV
from outrider.attention.selector import select_backend
from outrider.core import plugins
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.platforms import base as platforms
from outrider.platforms.base import (
    BasePlatform,
    Capability,
    GpuPlatform,
    platform_class,
    platform_names,
    select_platform,
)

SPEC = PagedKV(num_kv_heads=2, head_dim=32, value_dim=32, dtype=torch.float32)
CPU = select_platform("cpu")
H200 = Capability(name="NVIDIA H200", version=(9, 0), arch="sm_90", runtime="13.0")
T4 = Capability(name="Tesla T4", version=(7, 5), arch="sm_75", runtime="13.0")
A100 = Capability(name="NVIDIA A100", version=(8, 0), arch="sm_80", runtime="13.0")
MI300 = Capability(name="AMD Instinct MI300X", version=(9, 4), arch="gfx942", runtime="7.1")
MI100 = Capability(name="AMD Instinct MI100", version=(9, 0), arch="gfx908", runtime="7.1")
UNSEEN = {
    "cuda": [
        A100,
        Capability(name="NVIDIA GeForce RTX 3090", version=(8, 6), arch="sm_86", runtime="13.0"),
        Capability(name="NVIDIA L4", version=(8, 9), arch="sm_89", runtime="13.0"),
        Capability(name="NVIDIA B200", version=(10, 0), arch="sm_100", runtime="13.0"),
        Capability(name="NVIDIA GeForce RTX 5090", version=(12, 0), arch="sm_120", runtime="13.0"),
    ],
    "rocm": [MI300, Capability(name="AMD Radeon RX 7900 XTX", version=(11, 0), arch="gfx1100", runtime="7.1")],
}
"""GPUs on which the project has not run: their owners' engines check the kernels."""
GPUS = {"cuda": (H200, T4), "rocm": (MI300, MI100)}
"""A GPU that each platform takes, and one that it refuses."""


class OtherSpec(PagedSpec):
    """A cache of a kind that no backend knows."""

    def bytes_per_block(self, block_size):
        return block_size

    def allocate(self, num_blocks, *, block_size, group, device):
        raise AssertionError("it is never allocated")


BF16 = PagedKV(num_kv_heads=2, head_dim=128, value_dim=128, dtype=torch.bfloat16)


def platform_of(name: str) -> BasePlatform:
    """The platform as it is on a machine that has such a device."""
    found = platform_class(name)
    return found(GPUS[name][0]) if issubclass(found, GpuPlatform) else found()


@pytest.mark.parametrize("name", platform_names())
def test_platforms_keep_their_contract(name):
    platform = platform_of(name)
    assert isinstance(platform, BasePlatform) and platform.name == name
    known = set(plugins.names(package))
    assert set(platform.attention_backends) <= known
    assert set(platform.excluded_backends) <= known - set(platform.attention_backends)
    assert all(reason for reason in platform.excluded_backends.values())
    assert platform.summary and platform.reason
    key = platform.key(platform.resolve_dtype("auto"))
    assert {"device", "capability", "torch", "dtype"} <= set(key)
    assert all(isinstance(value, str) for value in key.values())


def test_the_key_of_a_cpu_changes_with_its_threads():
    before = CPU.key(torch.float32)
    torch.set_num_threads(2)
    try:
        assert CPU.key(torch.float32) != before
    finally:
        torch.set_num_threads(1)
    assert CPU.key(torch.float32) == before
    assert before["capability"] == torch.backends.cpu.get_cpu_capability()


def test_a_cpu_computes_in_float32():
    assert CPU.resolve_dtype("auto") == CPU.resolve_dtype("float32") == torch.float32
    with pytest.raises(ConfigError, match=r"dtype='bfloat16'.*a CPU computes in float32"):
        CPU.resolve_dtype("bfloat16")


def test_auto_takes_a_platform_that_is_built():
    assert select_platform("auto").name in platform_names()


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_that_is_not_here_is_refused_with_the_remedy(name, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    stack = platform_class(name).stack
    with pytest.raises(ConfigError, match=rf"device='{name}': this PyTorch .* not for {stack}.*device='cpu'"):
        select_platform(name)
    monkeypatch.setattr(torch.version, stack.lower() if name == "cuda" else "hip", "1.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=rf"device='{name}': PyTorch finds no {stack} device"):
        select_platform(name)


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_that_is_not_built_for_is_refused_by_its_name(name):
    taken, refused = GPUS[name]
    assert platform_class(name)(taken).capability == taken
    with pytest.raises(UnsupportedError, match=rf"device='{name}': {refused.name} \({refused.arch}\) cannot be used"):
        platform_class(name)(refused)


def _machine(monkeypatch, **found: Capability) -> None:
    """A machine with these GPUs: each platform is asked as `_query` would be."""

    def query(self: GpuPlatform) -> Capability:
        if self.name not in found:
            raise ConfigError(f"no {self.stack} here")
        return found[self.name]

    monkeypatch.setattr(platforms.GpuPlatform, "_query", query)


def test_auto_takes_the_gpu_that_is_here_and_says_why(monkeypatch):
    _machine(monkeypatch, cuda=H200)
    assert select_platform("auto").name == "cuda"
    _machine(monkeypatch)
    chosen = select_platform("auto")
    assert chosen.name == "cpu"
    assert chosen.reason == "first available; no CUDA here; no ROCm here"
    assert select_platform("cpu").reason == "asked for by name"


@pytest.mark.parametrize(("name", "capability"), [(name, one) for name, some in UNSEEN.items() for one in some])
def test_a_gpu_without_tests_has_the_portable_kernels_and_is_checked(name, capability, monkeypatch):
    platform = platform_class(name)(capability)
    assert platform.kernel_stack == ("triton",) and platform.has_graphs and platform.compiles_kernels
    assert not platform.is_exact and platform.is_checked_at_start
    assert platform.resolve_dtype("auto") == torch.bfloat16
    with pytest.raises(ConfigError, match=r"dtype='float16' cannot be used: .*compute in bfloat16"):
        platform.resolve_dtype("float16")
    key = platform.key(torch.bfloat16)
    assert key["kind"] == capability.name and key["kernel_stack"] == "triton" and "triton" in key
    selection = select_backend("auto", [BF16], platform)
    assert selection.backend.name == "triton" and platform.summary in selection.reason
    assert "not row-invariant" in dict(selection.refused)["oracle"]
    _machine(monkeypatch, **{name: capability})
    chosen = select_platform("auto")
    assert chosen.name == "cpu"
    assert (
        f"{platform.summary} was not tested, and an engine on it checks its kernels; ask for it by name"
        in chosen.reason
    )
    assert select_platform(name).name == name


def test_hopper_is_exact_with_its_own_kernels_and_not_checked(monkeypatch):
    hopper = platform_class("cuda")(H200)
    assert hopper.kernel_stack == ("hopper", "triton") and hopper.is_exact and not hopper.is_checked_at_start
    monkeypatch.setenv("OUTRIDER_KERNELS", "triton")
    portable = platform_class("cuda")(H200)
    assert portable.kernel_stack == ("triton",) and not portable.is_exact and not portable.is_checked_at_start


def test_hoppers_kernels_are_refused_on_other_gpus(monkeypatch):
    monkeypatch.setenv("OUTRIDER_KERNELS", "hopper,triton")
    with pytest.raises(ConfigError, match=r"OUTRIDER_KERNELS='hopper,triton': .*9\.0 only, and NVIDIA A100.* has 8\.0"):
        platform_class("cuda")(A100)
    monkeypatch.setenv("OUTRIDER_KERNELS", "triton, reference")
    other = platform_class("cuda")(A100)
    assert other.kernel_stack == ("triton", "reference") and not other.is_exact and other.is_checked_at_start


def test_auto_does_not_hide_a_gpu_that_is_not_built_for(monkeypatch):
    """Without bfloat16 only float16 would be left."""
    _machine(monkeypatch, cuda=T4)
    with pytest.raises(UnsupportedError, match=r"Tesla T4 \(sm_75\) cannot be used: .*7\.5.*fp16.*Use device='cpu'"):
        select_platform("auto")


@pytest.mark.parametrize(("name", "missing"), [("xpu", "torch.xpu"), ("mps", "Metal")])
def test_a_device_without_a_platform_is_refused_with_what_is_missing(name, missing):
    with pytest.raises(UnsupportedError, match=rf"device='{name}' is not supported: .*{missing}.*Use device='cpu'"):
        select_platform(name)


@pytest.fixture
def more_backends(tmp_path, monkeypatch):
    """Three more files: one for Hopper only, one for AMD's matrix cores, one that is quick and not exact."""
    for name, (is_exact, condition, reason) in {
        "wgmma": (True, "getattr(platform, 'capability', None) is None or platform.name != 'cuda'", "it needs Hopper"),
        "mfma": (True, "not getattr(platform, 'summary', '').endswith('(gfx942)')", "it needs gfx942"),
        "quick": (False, "False", ""),
    }.items():
        (tmp_path / f"{name}.py").write_text(
            "from outrider.attention.base import AttentionBackend\n"
            "class Backend(AttentionBackend):\n"
            f"    name, is_exact = {name!r}, {is_exact}\n"
            "    @classmethod\n"
            "    def refuses(cls, spec, platform):\n"
            f"        return {reason!r} if {condition} else None\n"
        )
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])


def test_each_platform_goes_by_its_own_order_and_by_capability(more_backends, monkeypatch):
    cuda, rocm = platform_of("cuda"), platform_of("rocm")
    order = ("quick", "mfma", "wgmma", "oracle", "triton")
    for platform in (cuda, rocm, CPU):
        monkeypatch.setattr(type(platform), "attention_backends", order)
    chosen = {}
    for platform, spec in ((cuda, BF16), (rocm, BF16), (CPU, SPEC)):
        selection = select_backend("auto", [spec], platform)
        chosen[platform.name] = selection.backend.name
        refused = dict(selection.refused)
        assert {selection.backend.name, *refused} == set(plugins.names(package))
        assert refused["quick"] == "it is not exact: its results depend on the batch; ask for it by name"
        assert platform.summary in selection.reason and ", ".join(order) in selection.reason
    assert chosen == {"cuda": "wgmma", "rocm": "mfma", "cpu": "oracle"}
    older = type(rocm)(Capability(name="AMD Instinct MI250X", version=(9, 0), arch="gfx90a", runtime="7.1"))
    selection = select_backend("auto", [BF16], older)
    assert selection.backend.name == "triton"
    assert dict(selection.refused)["mfma"] == "it needs gfx942"
    assert select_backend("quick", [SPEC], CPU).reason == "asked for by name"


def test_a_backend_outside_the_order_is_taken_by_name_only(more_backends):
    selection = select_backend("auto", [BF16], platform_of("cuda"))
    assert selection.backend.name == "triton"
    assert dict(selection.refused)["wgmma"] == "it is not among cuda's backends; ask for it by name"
    assert select_backend("wgmma", [BF16], platform_of("cuda")).backend.name == "wgmma"


def test_an_unknown_platform_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"device='base' is not known.*auto, cpu, cuda, rocm"):
        select_platform("base")


@pytest.mark.parametrize("name", plugins.names(package))
def test_backends_keep_their_contract(name):
    backend = plugins.find(package, name, what="backend").Backend
    assert issubclass(backend, AttentionBackend) and backend.name == name
    runs_here = name in CPU.attention_backends
    reason = backend.refuses(SPEC, CPU)
    assert reason is None if runs_here else reason, f"{name} gives no reason why it does not run on a CPU"
    assert backend.refuses(OtherSpec(), CPU), f"{name} takes a cache that it does not know"


def test_auto_says_why_it_chose():
    selection = select_backend("auto", [SPEC], CPU)
    assert selection.backend.name == CPU.attention_backends[0]
    assert "cpu" in selection.reason
    names = {selection.backend.name, *(name for name, _ in selection.refused)}
    assert names == set(plugins.names(package))
    assert select_backend("oracle", [SPEC], CPU).reason == "asked for by name"


def test_a_backend_that_cannot_run_is_an_error():
    odd = PagedKV(num_kv_heads=1, head_dim=24, value_dim=24, dtype=torch.float32)
    with pytest.raises(ConfigError, match=r"'oracle' cannot be used: head_dim=24 is not a multiple of 16.*auto"):
        select_backend("oracle", [odd], CPU)
    with pytest.raises(ConfigError, match=r"no attention backend can run.*head_dim=24"):
        select_backend("auto", [odd], CPU)
    with pytest.raises(ConfigError, match=r"'flash9' is not known.*oracle"):
        select_backend("flash9", [SPEC], CPU)
