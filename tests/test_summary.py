"""The summary of a run: counted by hand, by the compiler, and on real states."""

import functools
import sys

import jax
import jax.numpy as jnp
import pytest
from programs import assert_one_line
from tiny_runs import UNET, configured

from experiments.run.summary import count_flops, network_flops, print_summary, saved_bytes, size, summarize
from sel.cli.console import console
from sel.models import ConditionalNAFNet
from sel.training import build_parts
from sel.training.state import init_params

pytestmark = pytest.mark.usefixtures("compile_little")


def flops(function, *shapes):
    return count_flops(jax.make_jaxpr(function)(*map(jnp.zeros, shapes)).jaxpr)


def nafnet(**options):
    module = ConditionalNAFNet(**{"width": 8, "encoder_blocks": (1,), "decoder_blocks": (1,), **options})
    return module, jax.eval_shape(functools.partial(init_params, module=module), jax.random.key(0))


def test_operations_counted_by_hand():
    assert flops(jnp.matmul, (3, 4), (4, 5)) == 2 * 3 * 4 * 5
    assert flops(lambda x, y: jnp.einsum("bhc,bdc->bhd", x, y), (2, 3, 4), (2, 5, 4)) == 2 * 2 * 3 * 5 * 4
    assert flops(lambda x: (3 * x + 1).sum(), (6, 7)) == 3 * 42

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert flops(convolve, (1, 8, 8, 3), (3, 3, 3, 5)) == 2 * (4 * 4 * 5) * (3 * 3 * 3)

    @jax.custom_jvp
    def doubled(x):
        return 2 * x

    doubled.defjvps(lambda t, _, x: 2 * t)

    def looped(x):
        return jax.lax.scan(lambda carry, _: (jax.jit(doubled)(carry), None), x, length=9)[0]

    assert flops(looped, (11,)) == 9 * 11

    def branched(x):
        return jax.lax.cond(x[0] > 0, lambda x: x + 1, lambda x: x * x * 2, x)

    assert flops(branched, (5,)) == 2 * 5


def test_the_compiler_counts_the_same_where_there_is_no_loop():
    module, params = nafnet()
    images, t = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
    forward = jax.jit(lambda params, x_t, mu, t: module.apply({"params": params}, x_t, mu, t))
    counted = forward.lower(params, images, images, t).compile({"xla_backend_optimization_level": 0}).cost_analysis()
    # It leaves out what falls on the zeros around an image, and simplifies here and there.
    assert network_flops(module, params, 2, 32) == pytest.approx(counted["flops"], rel=0.03)


def test_blocks_in_a_loop_count_one_by_one():
    one, two, three = (network_flops(*nafnet(middle_blocks=blocks), 1, 16) for blocks in (1, 2, 3))
    assert 0 < two - one == three - two


def test_backward_passes_are_two_forward_passes():
    module = build_parts(configured(model=UNET)).module
    params = jax.eval_shape(functools.partial(init_params, module=module), jax.random.key(0))
    images, t = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)

    def gradient(params, x_t, mu, t):
        return jax.grad(lambda p: module.apply({"params": p}, x_t, mu, t).sum())(params)

    step = count_flops(jax.make_jaxpr(gradient)(params, images, images, t).jaxpr)
    # The first layer has no input whose gradient were needed; small and narrow images pay more for sums.
    assert step / network_flops(module, params, 1, 16) == pytest.approx(3, rel=0.1)


def test_memory_of_a_step():
    summary, module = summarize(configured()), build_parts(configured()).module
    params = jax.eval_shape(functools.partial(init_params, module=module), jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sum(summary.parameters.values()) == count
    assert (summary.devices, summary.gradient_bytes) == (1, 4 * count)
    # Parameters, average, two moments; and the numbers of steps of run, optimizer and schedule.
    assert summary.state_bytes == 4 * 4 * count + 3 * 4
    two, four, six = (saved_bytes(module, params, batch, 16) for batch in (2, 4, 6))
    assert 0 < four - two == six - four  # every image needs the same
    assert saved_bytes(module.clone(remat=True), params, 4, 16) < four
    assert summarize(configured({"compute.accumulate": 2})).saved_bytes == two


def test_sizes_as_a_person_reads_them():
    assert [size(x) for x in (0, 1023, 1024, 3 * 2**20)] == ["0 B", "1023 B", "1.0 KiB", "3.0 MiB"]


@pytest.mark.parametrize(("asked", "told"), [(200, "over 3 steps, half of this short run"), (3, "")])
def test_a_warm_up_that_is_cut_short_is_told(capsys, monkeypatch, asked, told):
    monkeypatch.setattr(console, "_file", sys.stdout)
    print_summary(summarize(configured({"optimizer.warmup_steps": asked})))
    out = capsys.readouterr().out
    assert (told in out) if told else ("warms up" not in out)


def test_the_published_network_can_be_weighed_anywhere(shell):
    arguments = ["--config=configs/published.py", "--devices=8", "--config.compute.parameter_shards=0"]
    result = shell("summary", *arguments)
    assert (result.code, result.err) == (0, "")
    assert "287,965,571" in result.out
    # Four copies of 4 bytes, an eighth of each, but for the smallest arrays.
    assert "Memory of each of 8 devices: 551.7 MiB" in result.out
    assert_one_line(shell("summary", arguments[0], "--devices=3"), "config.batch_size", "3 devices", "found 8")


def test_train_prints_it_before_the_first_step(trained):
    out = trained[1].out
    assert out.index("Network nafnet") < out.index("Compiled, with the loss:") < out.index("step 36/36")
