"""GitLab's REST API, as much of it as an agent uses, in the shapes that docs.gitlab.com shows. There is no GitLab to run
in a test: this one is written from its documentation and can share a misunderstanding of it. Git itself is a real Gitea's.
"""

import json
import re
import urllib.parse


class GitLab:
    def __init__(self, repository, token, users=()):
        self.repository, self.token, self.users = repository, token, {name: 40 + i for i, name in enumerate(users)}
        self.merge_requests, self.archived = [], False

    def __call__(self, method, path, headers, body):
        url = urllib.parse.urlsplit(path)
        if not url.path.startswith("/api/v4/"):
            return None
        query = dict(urllib.parse.parse_qsl(url.query))
        said = json.loads(body) if body else None
        if headers.get("Authorization") != f"Bearer {self.token}":
            return 401, {"message": "401 Unauthorized"}
        rest = url.path.removeprefix("/api/v4")
        if rest == "/users":
            return 200, [{"id": self.users[name], "username": name} for name in self.users if name == query["username"]]
        project = "/projects/" + urllib.parse.quote(self.repository.name, safe="")
        if rest != project and not rest.startswith(project + "/"):
            return 404, {"message": "404 Project Not Found"}
        rest = rest.removeprefix(project)
        if (method, rest) == ("GET", ""):
            return 200, {"id": 5, "default_branch": "main", "archived": self.archived}
        if (method, rest) == ("GET", "/merge_requests"):
            assert query["state"] == "all"
            return 200, [one for one in self.merge_requests if one["source_branch"] == query["source_branch"]]
        if (method, rest) == ("POST", "/merge_requests"):
            return self.make(said)
        one = self.merge_requests[int(re.fullmatch(r"/merge_requests/(\d+)", rest)[1]) - 1]
        if method == "PUT":
            one["labels"] += [label for label in said.get("add_labels", "").split(",") if label]
            if "reviewer_ids" in said:
                one["reviewers"] = [{"id": user} for user in said["reviewer_ids"]]
        return 200, one

    def make(self, said):
        branch = said["source_branch"]
        if any(one["source_branch"] == branch and one["state"] == "opened" for one in self.merge_requests):
            return 409, {"message": [f"Another open merge request already exists for this source branch: !1 {branch}"]}
        number = len(self.merge_requests) + 1
        self.merge_requests.append({
            "id": 1000 + number, "iid": number, "project_id": 5, "source_project_id": 5, "target_project_id": 5,
            "title": said["title"], "description": said["description"], "state": "opened",
            "source_branch": branch, "target_branch": said["target_branch"], "labels": [], "reviewers": [],
            "draft": said["title"].startswith("Draft: "), "sha": self.repository.branches()[branch],
            "web_url": f"https://gitlab.example/{self.repository.name}/-/merge_requests/{number}",
        })
        return 201, self.merge_requests[-1]
