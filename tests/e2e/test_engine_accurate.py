"""The accurate profile: a greedy answer is the same alone and in a full batch."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from engine_calls import Engine
from engine_launcher import built_and_serving

BUILD = "smollm2-135m-instruct.cpu-x86.accurate"


@pytest.mark.timeout(300)
def test_32_mixed_lengths_in_flight_are_the_same_alone(tmp_path):
    prompts = [
        list(range(1000 + 40 * order, 1000 + 40 * order + 3 + 5 * order)) for order in range(32)
    ]
    with built_and_serving(BUILD, tmp_path) as server:
        engine = Engine(server.grpc)
        with ThreadPoolExecutor(32) as pool:
            together = list(pool.map(lambda ids: engine.core(ids, 12, end_id=-1).tokens, prompts))
        alone = [engine.core(ids, 12, end_id=-1).tokens for ids in prompts]
        engine.close()
    assert all(len(tokens) == 12 for tokens in together)
    assert together == alone
