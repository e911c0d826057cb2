"""Lists: pages of any size show everything once, in order; a page token is good for the list that gave it alone."""

import base64
import itertools

import pytest
from calls import code_of, elements, everything, pages
from genied import refused
from scanning import Scanner

COUNT = 23


@pytest.fixture(scope="module")
def filled(v1, module_organization):
    """An organization with 23 of everything (and of findings, 1,203)."""
    organization, owner = module_organization, module_organization.owner
    scanner = Scanner(v1, owner, organization.cloud_account())
    results = [scanner.result(f"arn:aws:s3:::bucket-{n}") for n in range(1200)]
    severities = ("CRITICAL", "LOW", "HIGH")
    results += [scanner.result(f"arn:aws:s3:::worse-{s}", check=f"c_{s}", severity=s) for s in severities]
    scanner.scan(*results)
    for n in range(COUNT - 1):
        scanner.scan(*results[n : n + 1])
        organization.cloud_account(f"account-{n}", "KUBERNETES")
        member = v1.Member(email=f"m{n}@example.com", role=v1.VIEWER)
        owner.members.CreateMember(v1.CreateMemberRequest(parent=organization.name, member=member))
    for n in range(COUNT):
        key = v1.ApiKey(display_name=str(n), role=v1.VIEWER)
        owner.api_keys.CreateApiKey(v1.CreateApiKeyRequest(parent=organization.name, api_key=key))
        organization.agent(str(n))
        organization.task(priority=n)
    finding = scanner.findings()[0]
    for n in range(COUNT - 1):
        owner.findings.AcknowledgeFinding(v1.AcknowledgeFindingRequest(name=finding.name, note=str(n)))
        owner.findings.ReopenFinding(v1.ReopenFindingRequest(name=finding.name))
    return organization, finding.name


@pytest.fixture(scope="module")
def listings(v1, filled):
    organization, finding = filled
    owner, parent = organization.owner, organization.name
    return {
        "ListMembers": (owner.members.ListMembers, v1.ListMembersRequest(parent=parent)),
        "ListApiKeys": (owner.api_keys.ListApiKeys, v1.ListApiKeysRequest(parent=parent)),
        "ListCloudAccounts": (owner.cloud_accounts.ListCloudAccounts, v1.ListCloudAccountsRequest(parent=parent)),
        "ListScans": (owner.scans.ListScans, v1.ListScansRequest(parent=parent)),
        "ListResources": (owner.resources.ListResources, v1.ListResourcesRequest(parent=parent)),
        "ListFindings": (owner.findings.ListFindings, v1.ListFindingsRequest(parent=parent)),
        "ListFindingEvents": (owner.findings.ListFindingEvents, v1.ListFindingEventsRequest(parent=finding)),
        "ListAgents": (owner.agents.ListAgents, v1.ListAgentsRequest(parent=parent)),
        "ListTasks": (owner.tasks.ListTasks, v1.ListTasksRequest(parent=parent)),
        "ListAuditEvents": (owner.audit.ListAuditEvents, v1.ListAuditEventsRequest(parent=parent)),
    }


COUNTS = {
    "ListMembers": 23, "ListApiKeys": 23, "ListCloudAccounts": 23, "ListScans": 23, "ListResources": 1203,
    "ListFindings": 1203, "ListFindingEvents": 45, "ListAgents": 23, "ListTasks": 23, "ListAuditEvents": None,
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_pages_of_any_size_show_everything_once_and_in_the_same_order(listings, name):
    method, request = listings[name]
    whole = everything(method, request)
    assert COUNTS[name] in (None, len(whole))
    # One by one through the first 200 are pages enough.
    one_by_one = []
    for page in pages(method, request, page_size=1):
        one_by_one += elements(page)
        if len(one_by_one) == 200:
            break
    assert one_by_one == whole[:200]
    sizes = [len(elements(page)) for page in pages(method, request, page_size=7)]
    assert everything(method, request, page_size=7) == whole
    assert set(sizes[:-1]) <= {7} and 1 <= sizes[-1] <= 7
    names = [str(element) for element in whole]
    assert len(names) == len(set(names))


def test_the_last_page_has_no_token(v1, listings):
    method, request = listings["ListMembers"]
    assert [len(elements(page)) for page in pages(method, request, page_size=23)] == [23]
    assert [len(elements(page)) for page in pages(method, request, page_size=22)] == [22, 1]


@pytest.mark.parametrize("page_size, expected", [(0, 50), (50, 50), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_page_sizes_have_their_bounds(listings, page_size, expected):
    method, request = listings["ListFindings"]
    assert len(elements(next(pages(method, request, page_size=page_size)))) == expected


@pytest.mark.parametrize("name", COUNTS)
def test_a_negative_page_size_is_refused(listings, name):
    method, request = listings[name]
    for page_size in (-1, -(2**31)):
        with refused("INVALID_ARGUMENT") as error:
            next(pages(method, request, page_size=page_size))
        assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["page_size"]


def test_findings_are_listed_by_severity_then_newest_first(listings):
    method, request = listings["ListFindings"]
    listed = everything(method, request)
    assert [f.severity for f in listed] == sorted((f.severity for f in listed), reverse=True)
    for before, after in itertools.pairwise(listed):
        if before.severity == after.severity:
            assert before.create_time.ToNanoseconds() >= after.create_time.ToNanoseconds()


@pytest.mark.parametrize("name", ["ListApiKeys", "ListScans", "ListResources", "ListAgents", "ListTasks"])
def test_what_is_listed_newest_first_is(listings, name):
    method, request = listings[name]
    times = [element.create_time.ToNanoseconds() for element in everything(method, request)]
    assert times == sorted(times, reverse=True)


def test_audit_events_are_listed_newest_first_and_finding_events_oldest_first(listings):
    method, request = listings["ListAuditEvents"]
    times = [event.event_time.ToNanoseconds() for event in everything(method, request)]
    assert times == sorted(times, reverse=True)
    method, request = listings["ListFindingEvents"]
    times = [event.event_time.ToNanoseconds() for event in everything(method, request)]
    assert times == sorted(times)


def token_of(method, request, page_size=7):
    return next(pages(method, request, page_size=page_size)).next_page_token


def refuse_token(method, request, token):
    with refused("INVALID_ARGUMENT") as error:
        next(pages(method, request, page_size=7, page_token=token))
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["page_token"]


def test_a_token_is_good_for_its_own_method_only(v1, listings):
    for name, (method, request) in listings.items():
        for other, (other_method, other_request) in listings.items():
            if other != name:
                refuse_token(other_method, other_request, token_of(method, request))


def test_a_token_is_good_for_its_own_organization_only(v1, listings, make_organization):
    method, request = listings["ListMembers"]
    other = make_organization()
    elsewhere = v1.ListMembersRequest(parent=other.name)
    refuse_token(other.owner.members.ListMembers, elsewhere, token_of(method, request))


def test_a_token_is_good_for_its_own_arguments_only(v1, listings, filled, admin, make_organization):
    organization, finding = filled
    method, request = listings["ListFindingEvents"]
    token = token_of(method, request)
    others = [f.name for f in elements(next(pages(*listings["ListFindings"], page_size=5))) if f.name != finding]
    refuse_token(method, v1.ListFindingEventsRequest(parent=others[0]), token)
    make_organization()
    first = next(pages(admin.organizations.ListOrganizations, v1.ListOrganizationsRequest(), page_size=1))
    refuse_token(
        admin.organizations.ListOrganizations, v1.ListOrganizationsRequest(show_deleted=True), first.next_page_token
    )


def test_a_token_may_go_on_with_another_page_size(listings):
    method, request = listings["ListMembers"]
    whole = everything(method, request)
    first = next(pages(method, request, page_size=3))
    rest = next(pages(method, request, page_size=1000, page_token=first.next_page_token))
    assert elements(first) + elements(rest) == whole


def test_another_members_token_of_the_same_organization_shows_nothing_new(v1, listings, filled):
    """A token is bound to the organization: a colleague may follow it, and sees what the colleague may see."""
    organization, _ = filled
    method, request = listings["ListMembers"]
    viewer = organization.member("VIEWER")
    token = token_of(method, request)
    code = code_of(lambda: next(pages(viewer.members.ListMembers, request, page_size=7, page_token=token)))
    assert code in ("OK", "INVALID_ARGUMENT")
    keys, key_request = listings["ListApiKeys"]
    key_token = token_of(keys, key_request)
    call = lambda: next(pages(viewer.api_keys.ListApiKeys, key_request, page_size=7, page_token=key_token))  # noqa: E731
    assert code_of(call) == "PERMISSION_DENIED"


def test_a_token_that_was_touched_is_refused(listings):
    method, request = listings["ListMembers"]
    token = token_of(method, request)
    swapped = {"A": "B"}
    for at in {0, 1, len(token) // 2, len(token) - 2}:
        letter = swapped.get(token[at], "A")
        refuse_token(method, request, token[:at] + letter + token[at + 1 :])
    for wrong in (token[:-4], token + "AAAA", token[::-1], "x", "AAAA", " ", "%00", "ä", token.lower(), "A" * 4000):
        refuse_token(method, request, wrong)


def test_a_token_tells_nothing(listings):
    """It is encrypted: neither names nor times can be read in it, and two for the same place differ or are opaque."""
    method, request = listings["ListFindings"]
    token = token_of(method, request)
    finding = elements(next(pages(method, request, page_size=7)))[-1]
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    assert finding.uid.encode() not in raw and bytes.fromhex(finding.uid.replace("-", "")) not in raw


def test_pages_stay_in_step_while_rows_come_in(v1, organization):
    """Keyset pages: nothing that was there is missed or shown twice, whatever comes in meanwhile."""
    owner, parent = organization.owner, organization.name

    def add(n):
        key = v1.ApiKey(display_name=str(n), role=v1.VIEWER)
        return owner.api_keys.CreateApiKey(v1.CreateApiKeyRequest(parent=parent, api_key=key)).name

    before = [add(n) for n in range(10)][::-1]
    seen = []
    for page in pages(owner.api_keys.ListApiKeys, v1.ListApiKeysRequest(parent=parent), page_size=3):
        seen += [key.name for key in page.api_keys]
        add("new")
    assert seen == before


def test_an_empty_list_is_one_empty_page(v1, organization):
    answer = organization.owner.findings.ListFindings(v1.ListFindingsRequest(parent=organization.name))
    assert not answer.findings and not answer.next_page_token


def test_organizations_are_paged_too(v1, admin, make_organization):
    made = [make_organization() for _ in range(3)]
    whole = everything(admin.organizations.ListOrganizations, v1.ListOrganizationsRequest())
    assert everything(admin.organizations.ListOrganizations, v1.ListOrganizationsRequest(), page_size=7) == whole
    assert {organization.name for organization in made} <= {organization.name for organization in whole}
