"""Where the circuits of clouds stand, as the metrics page tells it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from forebay.edges.gauges import AdmissionGauges
from forebay.policy.admission import Ask, CloudBreakers, Controller, Place, Terms
from forebay.testing import ManualClock


def test_a_circuit_is_shown_from_the_start_and_as_it_moves():
    clock, breakers, registry = ManualClock(), CloudBreakers(), CollectorRegistry()
    controller = Controller([Place("cloud"), Place("local", "pool")], outside=breakers)
    registry.register(AdmissionGauges(controller.state, clock, breakers))

    def shown(target):
        states = ("closed", "open", "half_open")
        labels = ({"target": target, "state": state} for state in states)
        return [registry.get_sample_value("forebay_cloud_state", told) for told in labels]

    assert shown("cloud") == [1.0, None, None]
    assert shown("local") == [None, None, None]
    for _ in range(3):
        ticket = controller.ask(
            Ask("r", Terms("class"), "cloud", 1, 1, clock.now_s()), clock.now_s()
        )
        controller.drain(clock.now_s())
        controller.ended(ticket, "failed", clock.now_s())
    assert shown("cloud") == [None, 1.0, None]
    clock.time_s += 1.0
    assert shown("cloud") == [None, None, 1.0]


def test_a_cloud_that_is_full_is_shown_until_it_has_answered():
    clock, breakers, registry = ManualClock(), CloudBreakers(), CollectorRegistry()
    controller = Controller([Place("cloud")], outside=breakers)
    registry.register(AdmissionGauges(controller.state, clock, breakers))

    def full():
        return registry.get_sample_value("forebay_cloud_full", {"target": "cloud"})

    assert full() == 0.0
    for _ in range(3):
        breakers.full("cloud", 1.0, clock.now_s(), clock.now_s())
    assert full() == 1.0
    clock.time_s += 5.0
    assert full() == 1.0
    breakers.ended("cloud", "served", clock.now_s(), clock.now_s())
    assert full() == 0.0
