"""The CRF against enumeration of all tag sequences, float64 and pytorch-crf's formula."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from hf_nlpnotes.layers import ConditionalRandomField
from hf_nlpnotes.layers.crf import _Chains
from hf_nlpnotes.layers.crf_partition import ALGORITHMS

# (batch, seq, num_tags)
SHAPE = (4, 5, 3)
MASKS = {
    "none": None,
    "right padding": [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]],
    "holes": [[0, 1, 0, 1, 1], [1, 0, 0, 0, 1], [0, 0, 0, 1, 0], [0, 1, 1, 1, 1]],
}
# O, B, I: I only after B or I, and no sequence ends in B.
TRANSITIONS = [[True, True, False], [True, True, True], [True, True, True]]
STARTS, ENDS = [True, True, False], [True, False, True]


def mask_of(name: str) -> torch.Tensor | None:
    return None if MASKS[name] is None else torch.tensor(MASKS[name])


def random_crf(constrained: bool = False, algorithm: str = "auto", dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(7)
    crf = ConditionalRandomField(3, (TRANSITIONS, STARTS, ENDS) if constrained else None, algorithm=algorithm)
    crf.to(dtype)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return crf


def random_emissions(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(3), dtype=dtype)


def is_allowed(path: tuple[int, ...]) -> bool:
    inner = all(TRANSITIONS[a][b] for a, b in itertools.pairwise(path))
    return inner and STARTS[path[0]] and ENDS[path[-1]]


def enumerate_paths(crf, emissions, row: int, mask, constrained: bool) -> list[tuple[tuple[int, ...], torch.Tensor]]:
    """Return every sequence of one row with its score, which autograd can follow."""
    places = [t for t in range(SHAPE[1]) if mask is None or mask[row, t]]
    paths = []
    for path in itertools.product(range(crf.num_tags), repeat=len(places)):
        if constrained and not is_allowed(path):
            continue
        score = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
        for place, tag in zip(places, path, strict=True):
            score = score + emissions[row, place, tag]
        for a, b in itertools.pairwise(path):
            score = score + crf.transitions[a, b]
        paths.append((path, score))
    return paths


def enumerated_log_z(crf, emissions, mask, constrained: bool) -> torch.Tensor:
    rows = [enumerate_paths(crf, emissions, row, mask, constrained) for row in range(SHAPE[0])]
    return torch.stack([torch.stack([score for _, score in row]).logsumexp(0) for row in rows])


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("name", MASKS)
class TestAgainstEnumeration:
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_log_partition_and_all_its_gradients(self, algorithm, name, constrained):
        crf, emissions, mask = random_crf(constrained, algorithm), random_emissions().requires_grad_(), mask_of(name)
        if constrained and name != "none":
            mask[2] = torch.tensor([1, 1, 0, 0, 1])
        inputs = [emissions, *crf.parameters()]
        weights = torch.tensor([1.0, 2.0, -0.5, 3.0], dtype=torch.float64)
        expected = enumerated_log_z(crf, emissions, mask, constrained)
        found = crf.log_partition(emissions, mask)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        gradients = torch.autograd.grad(found @ weights, inputs)
        for mine, theirs in zip(gradients, torch.autograd.grad(expected @ weights, inputs), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_marginals(self, algorithm, name, constrained):
        crf, emissions, mask = random_crf(constrained, algorithm), random_emissions(), mask_of(name)
        expected = torch.zeros(SHAPE, dtype=torch.float64)
        for row in range(SHAPE[0]):
            places = [t for t in range(SHAPE[1]) if mask is None or mask[row, t]]
            paths = enumerate_paths(crf, emissions, row, mask, constrained)
            shares = torch.stack([score for _, score in paths]).softmax(0)
            for (path, _), share in zip(paths, shares, strict=True):
                for place, tag in zip(places, path, strict=True):
                    expected[row, place, tag] += share.detach()
        torch.testing.assert_close(crf.marginals(emissions, mask), expected, rtol=1e-10, atol=1e-10)

    def test_best_paths(self, name, constrained):
        crf, emissions, mask = random_crf(constrained), random_emissions(), mask_of(name)
        found = crf.n_best(emissions, mask, k=7)
        log_z = enumerated_log_z(crf, emissions, mask, constrained)
        for row, decoded in enumerate(crf.decode(emissions, mask)):
            ranked = sorted(enumerate_paths(crf, emissions, row, mask, constrained), key=lambda pair: -pair[1])[:7]
            assert decoded == list(ranked[0][0])
            assert [one.tags for one in found[row]] == [list(path) for path, _ in ranked]
            for one, (_, score) in zip(found[row], ranked, strict=True):
                assert one.score == pytest.approx(score.item(), rel=1e-10)
                assert one.log_probability == pytest.approx((score - log_z[row]).item(), rel=1e-10)


class TestLoss:
    def tags(self):
        return torch.tensor([[0, 1, 2, 2, 0], [1, 2, 0, 0, 0], [0, 0, 0, 1, 2], [1, 2, 1, 2, 2]])

    @pytest.mark.parametrize("name", MASKS)
    def test_is_the_negative_log_likelihood(self, name):
        crf, emissions, mask = random_crf(), random_emissions().requires_grad_(), mask_of(name)
        losses = crf(emissions, self.tags(), mask, reduction="none")
        expected = []
        for row, log_z in enumerate(enumerated_log_z(crf, emissions, mask, constrained=False)):
            path = tuple(self.tags()[row][mask[row] == 1].tolist()) if mask is not None else tuple(self.tags()[row])
            score = dict(enumerate_paths(crf, emissions, row, mask, constrained=False))[tuple(map(int, path))]
            expected.append(log_z - score)
        torch.testing.assert_close(losses, torch.stack(expected), rtol=1e-10, atol=1e-10)
        inputs = [emissions, *crf.parameters()]
        for mine, theirs in zip(
            torch.autograd.grad(losses.sum(), inputs), torch.autograd.grad(sum(expected), inputs), strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)

    def test_reductions(self):
        crf, emissions, mask = random_crf(), random_emissions(), mask_of("right padding")
        losses = crf(emissions, self.tags(), mask, reduction="none")
        assert crf(emissions, self.tags(), mask) == losses.mean()
        assert crf(emissions, self.tags(), mask, reduction="sum") == losses.sum()
        assert crf(emissions, self.tags(), mask, reduction="token_mean") == losses.sum() / 11

    @pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
    def test_whole_numbers_of_any_width(self, dtype):
        crf, emissions, mask = random_crf(), random_emissions(), mask_of("holes")
        tags = self.tags().masked_fill(mask == 0, -100)
        assert crf(emissions, tags.to(dtype)) == crf(emissions, tags)

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_second_derivatives_are_refused(self, algorithm):
        """A gradient penalty would be wrong without a word: the part that comes through the CRF would be missing."""
        crf, vectors = random_crf(algorithm=algorithm), random_emissions().requires_grad_()
        classifier = torch.nn.Linear(3, 3).double()
        loss = crf(classifier(vectors), self.tags())
        (once,) = torch.autograd.grad(loss, vectors, create_graph=True)
        torch.testing.assert_close(once, torch.autograd.grad(loss, vectors)[0])
        penalty = once.square().sum()
        for inputs in ([classifier.weight], [vectors], [crf.transitions]):
            with pytest.raises(RuntimeError, match="has no second derivatives here"):
                torch.autograd.grad(penalty, inputs, retain_graph=True)

    def test_ignored_tags_are_left_out_as_by_the_mask(self):
        crf, emissions, mask = random_crf(), random_emissions(), mask_of("holes")
        ignored = self.tags().masked_fill(mask == 0, -100)
        assert crf(emissions, ignored) == crf(emissions, self.tags(), mask)
        half = torch.ones_like(mask)
        half[0, 1] = 0
        mask[0, 1] = 0
        assert crf(emissions, ignored, half) == crf(emissions, self.tags(), mask)

    def test_numbers_behind_the_mask_change_nothing(self):
        crf, emissions, mask = random_crf(), random_emissions(), mask_of("holes")
        expected = crf(emissions, self.tags(), mask)
        dirty = emissions.masked_fill(mask[:, :, None] == 0, torch.nan).requires_grad_()
        tags = self.tags().masked_fill(mask == 0, 99)
        loss = crf(dirty, tags, mask)
        assert loss == expected
        (gradient,) = torch.autograd.grad(loss, dirty)
        assert (gradient[mask == 0] == 0).all()
        assert gradient.isfinite().all()

    def test_gradients_of_gradient_free_parameters(self):
        crf, emissions = random_crf().requires_grad_(False), random_emissions().requires_grad_()
        assert torch.autograd.gradcheck(lambda x: crf(x, self.tags()), emissions)
        crf.requires_grad_(True)
        crf(random_emissions(), self.tags()).backward()
        assert all(parameter.grad is not None for parameter in crf.parameters())


class TestNumbers:
    @pytest.mark.parametrize("algorithm", ["sequential", "parallel"])
    @pytest.mark.parametrize("length", [512, 4096])
    def test_emission_gradients_in_float32_of_long_sequences(self, algorithm, length):
        torch.manual_seed(0)
        crf = ConditionalRandomField(9, algorithm=algorithm)
        exact = ConditionalRandomField(9, algorithm="log").double()
        for parameter, of_exact in zip(crf.parameters(), exact.parameters(), strict=True):
            torch.nn.init.normal_(parameter)
            of_exact.data.copy_(parameter.data)
        emissions = torch.randn(2, length, 9) * 4
        tags = torch.randint(9, (2, length))
        gradients = []
        for model, scores in ((crf, emissions.clone()), (exact, emissions.double())):
            scores.requires_grad_()
            (gradient,) = torch.autograd.grad(model(scores, tags, reduction="sum"), scores)
            gradients.append(gradient.double())
        assert (gradients[0] - gradients[1]).abs().max() <= 1e-6

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    @pytest.mark.parametrize("scale", [100.0, 1e4])
    def test_scores_far_apart(self, algorithm, scale):
        """What one step finds hopeless may be forced by the constraints: no underflow may lose it."""
        crf = random_crf(constrained=True, algorithm=algorithm)
        emissions = (random_emissions() * scale).requires_grad_()
        with torch.no_grad():
            crf.transitions.mul_(scale)
        expected = enumerated_log_z(crf, emissions, None, constrained=True)
        found = crf.log_partition(emissions)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        inputs = [emissions, *crf.parameters()]
        for mine, theirs in zip(
            torch.autograd.grad(found.sum(), inputs), torch.autograd.grad(expected.sum(), inputs), strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)

    def test_constraints_that_never_mix(self):
        """Tags that only go up: after many steps tags differ by the sum of many scores, not of one step's."""
        allowed = torch.ones(3, 3).triu().bool()
        generator = torch.Generator().manual_seed(0)
        emissions = torch.randn(2, 60, 3, generator=generator, dtype=torch.float64) * 20
        results = []
        for algorithm in ALGORITHMS:
            crf = ConditionalRandomField(3, allowed, algorithm=algorithm).double()
            results.append((crf.log_partition(emissions), crf.marginals(emissions)))
        for log_z, marginals in results[:2]:
            torch.testing.assert_close(log_z, results[2][0], rtol=1e-12, atol=0)
            torch.testing.assert_close(marginals, results[2][1], rtol=0, atol=1e-10)

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_a_sequence_that_is_hopeless_until_its_end(self, algorithm):
        """Tag 1 is better at each step by 10 and never left, but the last tag must be 0: one sequence is allowed."""
        crf = ConditionalRandomField(2, ([[True, True], [False, True]], [True, True], [True, False]))
        crf.algorithm = algorithm
        emissions = torch.tensor([0.0, 10.0], dtype=torch.float64).expand(1, 100, 2)
        assert crf.log_partition(emissions).item() == pytest.approx(0, abs=1e-9)
        torch.testing.assert_close(crf.marginals(emissions)[0, :, 0], torch.ones(100, dtype=torch.float64))

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    @pytest.mark.parametrize(("table", "tag"), [("transitions", 1), ("start_transitions", 1), ("end_transitions", 0)])
    def test_scores_of_neighbours_far_apart(self, algorithm, table, tag):
        """Tags that take turns and end in 0: the one sequence that is allowed, 1010, has the low score once."""
        crf = ConditionalRandomField(2, ([[False, True], [True, False]], [True, True], [True, False]))
        crf.double().algorithm = algorithm
        with torch.no_grad():
            getattr(crf, table)[..., tag] = -1000.0
        emissions = torch.zeros(1, 4, 2, dtype=torch.float64)
        assert crf.log_partition(emissions).item() == pytest.approx(-1000, abs=1e-9)
        assert crf.marginals(emissions)[0, :, 1].tolist() == pytest.approx([1, 0, 1, 0])

    def test_minus_infinity_forbids_a_tag_at_a_position(self):
        crf, emissions = random_crf(), random_emissions()
        emissions[:, 2, 1] = -torch.inf
        marginals = crf.marginals(emissions)
        assert (marginals[:, 2, 1] == 0).all()
        torch.testing.assert_close(marginals.sum(-1), torch.ones(SHAPE[:2], dtype=torch.float64))
        assert all(path[2] != 1 for path in crf.decode(emissions))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_gives_the_result_of_float32(self, dtype):
        crf = random_crf(dtype=torch.float32).to(dtype).float()  # parameters that half precision can hold
        emissions = random_emissions(torch.float32).to(dtype)
        tags = TestLoss().tags()
        expected = crf(emissions.float(), tags)
        assert crf(emissions, tags) == expected
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert crf(emissions, tags) == expected
        crf.to(dtype)
        loss = crf(emissions.requires_grad_(), tags)
        assert loss.dtype == torch.float32
        assert loss == expected
        loss.backward()
        assert emissions.grad.dtype == dtype


class TestConstraints:
    def test_every_decoded_sequence_is_allowed(self):
        crf = random_crf(constrained=True)
        emissions = torch.randn(64, 9, 3, dtype=torch.float64)
        assert all(map(is_allowed, map(tuple, crf.decode(emissions))))
        assert all(is_allowed(tuple(one.tags)) for row in crf.n_best(emissions, k=4) for one in row)

    def test_forbidden_sequences_are_none_at_all(self):
        crf = ConditionalRandomField(3, (TRANSITIONS, STARTS, ENDS)).double()
        count = len([path for path in itertools.product(range(3), repeat=5) if is_allowed(path)])
        torch.testing.assert_close(
            crf.log_partition(torch.zeros(1, 5, 3)).exp(), torch.tensor([count]).float(), rtol=1e-5, atol=0
        )
        assert len(crf.n_best(torch.zeros(1, 2, 3), k=50)[0]) == len(
            [path for path in itertools.product(range(3), repeat=2) if is_allowed(path)]
        )

    def test_a_table_of_transitions_alone_leaves_starts_and_ends_free(self):
        crf = ConditionalRandomField(3, TRANSITIONS)
        assert crf.allowed.tolist() == TRANSITIONS
        assert crf.allowed_start.all()
        assert crf.allowed_end.all()

    def test_what_print_shows(self):
        assert repr(ConditionalRandomField(3)) == "ConditionalRandomField(3, algorithm='auto')"
        assert repr(random_crf(constrained=True)).endswith("(3, 8 transitions allowed, algorithm='auto')")

    def test_five_are_the_best_by_default(self):
        assert [len(row) for row in random_crf().n_best(random_emissions())] == [5] * SHAPE[0]

    def test_constraints_are_not_saved(self):
        assert set(random_crf(constrained=True).state_dict()) == {
            "transitions",
            "start_transitions",
            "end_transitions",
        }

    def test_constraints_are_there_on_the_meta_device_too(self):
        with torch.device("meta"):
            crf = ConditionalRandomField(3, (TRANSITIONS, STARTS, ENDS))
        assert crf.allowed.is_meta
        assert crf.constraints()["allowed_end"].tolist() == ENDS


class TestCost:
    def test_the_parallel_form_has_few_operations_and_the_decoder_reads_no_single_number(self):
        crf = ConditionalRandomField(9, algorithm="parallel")
        emissions, tags = torch.randn(2, 512, 9, requires_grad=True), torch.randint(9, (2, 512))
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            crf(emissions, tags)
        count = sum(event.count for event in profiler.key_averages() if event.key.startswith("aten::"))
        assert 0 < count <= 500
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            crf.decode(emissions)
        names = {event.key for event in profiler.key_averages()}
        assert "aten::amax" in names
        assert not names & {"aten::item", "aten::_local_scalar_dense"}

    def test_the_parallel_form_is_that_of_accelerators_as_long_as_its_tree_is_small(self):
        crf = ConditionalRandomField(16)
        lengths = torch.ones(1, dtype=torch.long)
        # A tree has 4 numbers of 8 bytes for each pair of tags at each position: 2 GiB at 64 × 4096 positions here.
        for length, expected in ((4096, "parallel"), (4097, "sequential")):
            chains = _Chains(torch.empty(64, length, 16, device="meta"), lengths, None)
            assert crf._algorithm(chains) == expected
        assert crf._algorithm(_Chains(torch.empty(1, 2, 16), lengths, None)) == "sequential"


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"emissions": torch.zeros(2, 3)}, r"shape \(batch, seq, 3\), got \(2, 3\)"),
            ({"emissions": torch.zeros(2, 4, 5)}, r"got \(2, 4, 5\)"),
            ({"emissions": torch.zeros(2, 4, 3, dtype=torch.long)}, "floating-point"),
            ({"emissions": torch.zeros(2, 0, 3)}, "no position"),
            ({"tags": torch.zeros(2, 3, dtype=torch.long)}, r"\(2, 4\), got \(2, 3\)"),
            ({"tags": torch.zeros(2, 4)}, "whole numbers"),
            ({"tags": torch.tensor([[0, 0, 0, 0], [0, 3, 0, 0]])}, r"hold 3 in row 1: expected 0 to 2, or -100"),
            ({"tags": torch.tensor([[0, 0, 0, 0], [0, -1, 0, 0]])}, "hold -1 in row 1"),
            ({"tags": torch.tensor([[0, 0, 0, 0], [-100] * 4])}, "row 1 has no position"),
            ({"mask": torch.ones(2, 5)}, r"mask must have the shape .* \(2, 4\), got \(2, 5\)"),
            ({"mask": torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])}, "row 0 has no position"),
            ({"reduction": "average"}, "'average'"),
            ({"emissions": torch.full((2, 4, 3), torch.nan)}, "row 0 .* not finite"),
            ({"emissions": torch.full((2, 4, 3), torch.inf)}, "not finite"),
        ],
    )
    def test_of_a_loss(self, change, message):
        arguments = {"emissions": torch.zeros(2, 4, 3), "tags": torch.zeros(2, 4, dtype=torch.long), **change}
        with pytest.raises(ValueError, match=message):
            ConditionalRandomField(3)(**arguments)

    @pytest.mark.parametrize(
        ("tags", "message"),
        [
            ([0, 2, 0], "row 0: tag 2 follows tag 0"),
            ([1, 0, 2], "row 0: tag 2 follows tag 0"),
            ([2, 0, 0], "begins with tag 2"),
            ([0, 0, 1], "ends with tag 1"),
        ],
    )
    def test_of_forbidden_tags(self, tags, message):
        crf = ConditionalRandomField(3, (TRANSITIONS, STARTS, ENDS))
        with pytest.raises(ValueError, match=message):
            crf(torch.zeros(1, 3, 3), torch.tensor([tags]))

    def test_of_forbidden_tags_in_one_of_the_rows(self):
        crf = ConditionalRandomField(3, (TRANSITIONS, STARTS, ENDS))
        with pytest.raises(ValueError, match="row 1: tag 2 follows tag 0"):
            crf(torch.zeros(2, 3, 3), torch.tensor([[0, 0, 0], [0, 2, 0]]))

    def test_of_tags_that_an_emission_rules_out(self):
        emissions = torch.zeros(1, 3, 3).index_fill(2, torch.tensor([1]), -torch.inf)
        with pytest.raises(ValueError, match="the emission of one of the tags is -inf"):
            ConditionalRandomField(3)(emissions, torch.tensor([[0, 1, 2]]))

    @pytest.mark.parametrize("method", ["decode", "n_best", "marginals", "log_partition"])
    def test_of_shapes(self, method):
        with pytest.raises(ValueError, match=r"shape \(batch, seq, 2\), got \(1, 3, 4\)"):
            getattr(ConditionalRandomField(2), method)(torch.zeros(1, 3, 4))

    @pytest.mark.parametrize("method", ["decode", "n_best", "marginals", "log_partition"])
    def test_of_lengths_that_the_constraints_have_no_sequence_for(self, method):
        crf = ConditionalRandomField(2, ([[False, True], [True, False]], [True, False], [False, True]))
        with pytest.raises(ValueError, match=r"no sequence of 3 tags is allowed \(row 1"):
            getattr(crf, method)(torch.zeros(2, 4, 2), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]))

    @pytest.mark.parametrize("method", ["decode", "n_best", "marginals", "log_partition"])
    def test_of_empty_sequences_and_of_nan(self, method):
        crf = ConditionalRandomField(2)
        with pytest.raises(ValueError, match="row 1 has no position"):
            getattr(crf, method)(torch.zeros(2, 2, 2), torch.tensor([[1, 1], [0, 0]]))
        with pytest.raises(ValueError, match="not finite"):
            getattr(crf, method)(torch.full((2, 2, 2), torch.nan))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0,), "num_tags"),
            ((True,), "num_tags"),
            ((3, torch.ones(3, 3, 3)), r"transitions must have the shape \(3, 3\), got \(3, 3, 3\)"),
            ((3, torch.ones(2, 2)), r"transitions must have the shape \(3, 3\), got \(2, 2\)"),
            ((3, (TRANSITIONS, STARTS, [True])), r"ends must have the shape \(3,\), got \(1,\)"),
            ((3, (TRANSITIONS, [False] * 3, ENDS)), "starts are all False"),
        ],
    )
    def test_of_constructions(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            ConditionalRandomField(*arguments)

    def test_of_unknown_algorithms_and_counts(self):
        with pytest.raises(ValueError, match="'fast'"):
            ConditionalRandomField(3, algorithm="fast")
        with pytest.raises(ValueError, match="k must be"):
            ConditionalRandomField(3).n_best(torch.zeros(1, 1, 3), k=0)
