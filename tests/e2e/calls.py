"""Ways to call that many tests share."""

import concurrent.futures
import time

import grpc


def pages(method, request, **fields):
    """Every page of a List, from the first to the last, with these fields set in each request."""
    asked = type(request)()
    asked.CopyFrom(request)
    asked.MergeFrom(type(request)(**fields))
    while True:
        answer = method(asked)
        yield answer
        asked.page_token = answer.next_page_token
        if not asked.page_token:
            return


def elements(page):
    """What a List's response lists: the first of its fields."""
    return list(getattr(page, page.DESCRIPTOR.fields[0].name))


def everything(method, request, page_size=1000):
    """Every element of a List, over all pages."""
    return [element for page in pages(method, request, page_size=page_size) for element in elements(page)]


def until(condition, seconds=20):
    """Asks again until the answer is true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(0.02)
    return answer


def code_of(call):
    """The name of the code that a call ends with; call is a function without arguments."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def at_once(*calls):
    """Makes all calls at the same time; what each returned, or the RpcError that it raised."""

    def outcome(call):
        try:
            return call()
        except grpc.RpcError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))
