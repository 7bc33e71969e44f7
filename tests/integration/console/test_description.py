"""The API does what its description says."""

from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from persistence.database import Database
from tests.support.kept_session import KeptSession

EXAMPLES = 8  # an endpoint


def test_the_api_is_as_its_description_says(
    client: httpx.Client, database: Database, space: str, key: str
) -> None:
    session = KeptSession(database, space=space)
    session.hear()
    session.end()
    session.analyse()
    description = client.get("/api/v1/openapi.json").json()
    del description["paths"]["/api/v1/sessions/{session_id}/events"]  # of a live session it does not end
    schema = schemathesis.openapi.from_dict(description)
    schema.config.update(base_url=str(client.base_url).rstrip("/"))

    tried = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
        def hold(case: schemathesis.Case[Any]) -> None:
            # No pattern says which cursors are ours: most of what it makes up is refused, as it should be.
            case.call_and_validate(
                headers={"Authorization": f"Bearer {key}"}, excluded_checks=[positive_data_acceptance]
            )

        hold()
        tried += 1
    assert tried == 7
