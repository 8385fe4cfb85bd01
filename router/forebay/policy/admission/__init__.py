"""Admission: which replica takes a request, how long it waits, and when it goes elsewhere."""

from forebay.policy.admission.breakers import CloudBreakers
from forebay.policy.admission.controller import Controller
from forebay.policy.admission.model import Coefficients
from forebay.policy.admission.outside import Allowance, Open, Outside
from forebay.policy.admission.terms import Ask, Offer, Outcome, Place, ReplicaSpec, Terms, Ticket

__all__ = [
    "Allowance",
    "Ask",
    "CloudBreakers",
    "Coefficients",
    "Controller",
    "Offer",
    "Open",
    "Outcome",
    "Outside",
    "Place",
    "ReplicaSpec",
    "Terms",
    "Ticket",
]
