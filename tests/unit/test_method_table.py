#!/usr/bin/env python3
"""What tools/method_table.py makes of an API, and which APIs it refuses: small ones that are made here.

usage: test_method_table.py SOURCE_DIR DESCRIPTOR_SET

DESCRIPTOR_SET is the real API's, which must pass with the real statements.
"""
import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(sys.argv[1])
DESCRIPTOR_SET = sys.argv[2]

HEAD = '''syntax = "proto3";
package test.v1;
import "devopsgenie/options/options.proto";
import "google/api/annotations.proto";
import "google/api/field_behavior.proto";
import "google/api/resource.proto";
message Thing {
  option (google.api.resource) = {type: "test/Thing" pattern: "organizations/{organization}/things/{thing}"};
  enum Kind { KIND_UNSPECIFIED = 0; BIG = 1; }
  string name = 1 [(google.api.field_behavior) = IDENTIFIER];
  string title = 2 [(devopsgenie.options.valid) = {required: true max_length: 7}];
  Kind kind = 3;
  string maker = 4 [(google.api.field_behavior) = OUTPUT_ONLY];
  string place = 5 [(google.api.field_behavior) = IMMUTABLE];
  string etag = 6;
}
message Part { string size = 1 [(devopsgenie.options.valid).max_length = 9]; }
message Note { string text = 1; }
message GetThingRequest { string name = 1; repeated Part parts = 2; repeated Note notes = 3; map<string, string> map = 4; }
message UpdateThingRequest { Thing thing = 1; }
'''
GET = 'option (google.api.http) = {get: "/v1/{name=organizations/*/things/*}"};'
RULE = 'option (devopsgenie.options.rule) = {least_role: VIEWER};'


def method(options, name='GetThing', request='GetThingRequest'):
    return f'rpc {name}({request}) returns (Thing) {{ {options} }}'


class Tables(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / 'migrations').mkdir()
        (self.folder / 'queries').mkdir()

    def query(self, name, sql='SELECT 1'):
        path = self.folder / 'queries' / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(sql)

    def table(self, methods, head=HEAD):
        """The table of a service with these methods: the process, and the C that it wrote."""
        (self.folder / 'test.proto').write_text(f'{head}service ThingService {{ {methods} }}\n')
        subprocess.run(['protoc', f'-I{self.folder}', f'-I{SOURCE / "proto"}', '-I/usr/include', '--include_imports',
                        f'--descriptor_set_out={self.folder / "set"}', 'test.proto'], check=True)
        return self.run_tool(self.folder / 'set', self.folder / 'queries', self.folder / 'migrations')

    def run_tool(self, *arguments):
        output = self.folder / 'table.c'
        process = subprocess.run([sys.executable, SOURCE / 'tools/method_table.py', *arguments, output],
                                 capture_output=True, text=True, check=False)
        return process, output.read_text() if output.exists() else None

    def assert_refused(self, methods, *problems, head=HEAD):
        process, text = self.table(methods, head)
        self.assertEqual(process.returncode, 1, process.stderr)
        self.assertEqual(process.stderr.splitlines(), list(problems))
        self.assertIsNone(text)

    def assert_made(self, methods, *parts):
        process, text = self.table(methods)
        self.assertEqual((process.returncode, process.stderr), (0, ''))
        for part in parts:
            self.assertIn(part, text)
        return text

    def test_a_method_with_rule_and_statement(self):
        self.query('thing_service/get_thing.sql', 'SELECT \'a"b\\\' -- ??\nFROM t')
        self.assert_made(method(GET + RULE), '.path = "/test.v1.ThingService/GetThing"', '.kind = METHOD_GET',
                         '.lane = LANE_READ', '.least_role = ROLE_VIEWER', '{"name", "test/Thing"',
                         '"organizations", "things", NULL', '"organization", "thing", NULL',
                         '.sql_file = "thing_service/get_thing.sql"', r"SELECT 'a\042b\134' -- \077\077\012")

    def test_no_rule(self):
        self.query('thing_service/get_thing.sql')
        self.assert_refused(method(GET), 'test.v1.ThingService.GetThing: no access rule',
                            'thing_service/get_thing.sql: no method of that name')

    def test_a_rule_that_lets_nobody_in(self):
        self.query('thing_service/get_thing.sql')
        for rule in '{}', '{on_deleted: true}', '{lane: BULK}':
            self.assert_refused(method(f'{GET} option (devopsgenie.options.rule) = {rule};'),
                                'test.v1.ThingService.GetThing: its access rule lets nobody in')

    def test_no_statement(self):
        self.assert_refused(method(GET + RULE),
                            'test.v1.ThingService.GetThing: neither thing_service/get_thing.sql nor a handler')

    def test_a_statement_without_a_method(self):
        self.query('thing_service/get_thing.sql')
        self.query('thing_service/get_things.sql')
        self.query('other_service/get_thing.sql')
        self.assert_refused(method(GET + RULE), 'other_service/get_thing.sql: no method of that name',
                            'thing_service/get_things.sql: no method of that name')

    def test_a_handler_and_a_statement(self):
        self.query('thing_service/get_thing.sql')
        rule = 'option (devopsgenie.options.rule) = {least_role: VIEWER handler: true};'
        self.assert_refused(
            method(GET + rule),
            'thing_service/get_thing.sql: test.v1.ThingService.GetThing has a handler, and no statement of its own',
            'thing_service/get_thing.sql: no method of that name')

    def test_a_name_that_no_resource_has(self):
        self.query('thing_service/get_thing.sql')
        http = 'option (google.api.http) = {get: "/v1/{name=organizations/*/nothings/*}"};'
        self.assert_refused(method(http + RULE), 'test.v1.ThingService.GetThing: no resource has the pattern '
                                                 'organizations/*/nothings/*')

    def test_all_problems_are_said_at_once(self):
        process, _ = self.table(method(GET) + method(RULE, 'DoThing'))
        self.assertEqual(len(process.stderr.splitlines()), 2)

    def test_handlers_hooks_and_streams(self):
        self.query('thing_service/update_thing.sql')
        http = ('option (google.api.http) = {patch: "/v1/{thing.name=organizations/*/things/*}" body: "thing"};')
        self.assert_made(
            method('option (devopsgenie.options.rule) = {any_caller: true handler: true};')
            + 'rpc Watch(GetThingRequest) returns (stream Thing) '
              '{ option (devopsgenie.options.rule) = {service_roles: SCANNER handler: true}; }'
            + method(http + 'option (devopsgenie.options.rule) = '
                            '{least_role: ADMIN before: {gives: "a" gives: "b"} after: true changes_access: true};',
                     'UpdateThing', 'UpdateThingRequest'),
            'void thing_service_get_thing(struct call *call);', '.handler = thing_service_get_thing',
            'extern const struct stream_handler thing_service_watch;', '.stream = &thing_service_watch',
            '.server_streams = true', '.service_roles = 1U << 2', '.any_caller = true',
            'bool thing_service_update_thing_before(struct call *call);', '.given = (const char *const[]){"a", "b", NULL}',
            'bool thing_service_update_thing_after(struct call *call, ProtobufCMessage *response);',
            '.kind = METHOD_UPDATE', '.lane = LANE_WRITE', '.body = "thing"', '.access_changes = true')

    def test_field_rules(self):
        self.query('thing_service/update_thing.sql')
        http = 'option (google.api.http) = {patch: "/v1/{thing.name=organizations/*/things/*}" body: "thing"};'
        text = self.assert_made(method(http + RULE, 'UpdateThing', 'UpdateThingRequest'))
        start = text.index('fields_rules_test__v1__thing[] = {')
        rules = text[start:text.index(';', start)]
        self.assertIn('{.index = 0}', rules)  # a text has a limit without being asked for
        self.assertIn('{.index = 1, .max_length = 7, .required = true}', rules)
        self.assertIn('{.index = 2}', rules)  # an enum too
        self.assertNotIn('.index = 3', rules)  # output only
        self.assertIn('(const char *const[]){"title", "kind", NULL}', text)  # what a mask may name

    def test_elements_are_checked_where_their_message_says_how(self):
        self.query('thing_service/get_thing.sql')
        text = self.assert_made(method(GET + RULE), '{.index = 1, .message = &rules_test__v1__part}')
        self.assertNotIn('rules_test__v1__note', text)
        self.assertNotIn('map_entry', text)

    def test_agents(self):
        self.query('thing_service/get_thing.sql')
        self.assert_made(method(GET + 'option (devopsgenie.options.rule) = {agents: true};'),
                         '.access = {.agents = true}')

    def test_internal_statements_and_migrations(self):
        self.query('thing_service/get_thing.sql')
        self.query('internal/sweep.sql', 'SELECT 2')
        (self.folder / 'migrations' / '0002_second.sql').write_text('CREATE TABLE b ()')
        (self.folder / 'migrations' / '0001_first.sql').write_text('CREATE TABLE a ()')
        text = self.assert_made(method(GET + RULE), '{"internal/sweep.sql", "SELECT 2"}')
        self.assertLess(text.index('{1, "0001_first", "CREATE TABLE a ()"}'),
                        text.index('{2, "0002_second", "CREATE TABLE b ()"}'))

    def test_the_real_api(self):
        process, text = self.run_tool(DESCRIPTOR_SET, SOURCE / 'storage/queries', SOURCE / 'storage/migrations')
        self.assertEqual((process.returncode, process.stderr), (0, ''))
        self.assertIn('"/devopsgenie.v1.FindingService/GetFinding"', text)


unittest.main(argv=sys.argv[:1])
