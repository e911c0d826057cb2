#!/usr/bin/env python3
"""Writes the server's method table as C, from the API's descriptor set and the SQL files.

usage: method_table.py DESCRIPTOR_SET QUERIES_DIR MIGRATIONS_DIR OUTPUT.c

Fails, with a line per problem, where a method has no access rule, or neither SQL file nor handler, and where a SQL file
has no method. A hook or handler that the options ask for and the server lacks fails the link instead.
"""
import pathlib
import re
import sys

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SYSTEM = ('grpc.', 'google.')  # services whose access stands here: the health and reflection protocols
FORMS = ['FORM_NONE', 'FORM_SLUG', 'FORM_EMAIL', 'FORM_UUID']
ROLES = ['ROLE_NONE', 'ROLE_VIEWER', 'ROLE_ANALYST', 'ROLE_APPROVER', 'ROLE_ADMIN', 'ROLE_OWNER']
OUTPUT_ONLY, IMMUTABLE, IDENTIFIER = 3, 5, 8

problems = []


def snake(name):
    return re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', name).lower()


def c_string(text):
    """A C string literal, split at the lines: SQL stays readable in the generated file."""
    def literal(line):
        return '"' + ''.join(c if 32 <= ord(c) < 127 and c not in '"\\?' else ''.join(f'\\{b:03o}' for b in c.encode())
                             for c in line) + '"'
    return '\n        '.join(literal(line) for line in text.splitlines(keepends=True)) or '""'


def c_strings(texts):
    return '(const char *const[]){' + ', '.join([f'"{t}"' for t in texts] + ['NULL']) + '}'


def c_descriptor(message):
    return f'{c_name(message)}__descriptor'


def c_name(message):
    """protobuf-c's name: package and nesting in snake case, joined with two underscores."""
    parts = message.full_name.split('.')
    return '__'.join(re.sub(r'(?<=[^A-Z])(?=[A-Z])', '_', p).lower() for p in parts)


class Api:
    def __init__(self, path):
        self.files = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(path).read_bytes())
        self.pool = descriptor_pool.DescriptorPool()
        for file in self.files.file:
            self.pool.Add(file)
        self.factory = message_factory.MessageFactory(self.pool)
        self.patterns = {}
        for file in self.files.file:
            for message in file.message_type:
                resource = self.option(self.pool.FindMessageTypeByName(f'{file.package}.{message.name}'), 'google.api.resource')
                if resource and resource.type:
                    self.patterns[resource.type] = resource.pattern[0]

    def option(self, descriptor, name):
        """The value of a custom option, or None."""
        extension = self.pool.FindExtensionByName(name)
        options = self.factory.GetPrototype(extension.containing_type).FromString(descriptor.GetOptions().SerializeToString())
        if extension.label == extension.LABEL_REPEATED:
            return list(options.Extensions[extension])
        return options.Extensions[extension] if options.HasExtension(extension) else None

    def services(self):
        for file in self.files.file:
            for service in file.service:
                yield self.pool.FindServiceByName(f'{file.package}.{service.name}')


class Rules:
    """Field rules as C tables, one per message that a request can hold."""
    def __init__(self, api):
        self.api, self.done, self.text = api, {}, []

    def of(self, message):
        if message.full_name not in self.done:
            self.done[message.full_name] = f'rules_{c_name(message)}'
            self.write(message)
        return self.done[message.full_name]

    def asked(self, message):
        """Whether a field of the message says what it may hold: only then are a repeated field's elements checked."""
        return any(self.api.option(field, 'devopsgenie.options.valid') for field in message.fields)

    def write(self, message):
        rows = []
        updatable = []
        for index, field in enumerate(sorted(message.fields, key=lambda f: f.number)):
            behavior = self.api.option(field, 'google.api.field_behavior')
            if OUTPUT_ONLY in behavior:
                continue
            valid = self.api.option(field, 'devopsgenie.options.valid')
            row = [f'.index = {index}']
            if valid:
                row += [f'.{n} = {getattr(valid, n)}' for n in ('min_length', 'max_length', 'max_element_length', 'min', 'max') if getattr(valid, n)]
                row += [f'.{n} = true' for n in ('required', 'future') if getattr(valid, n)]
                row += [f'.form = {FORMS[valid.form]}'] if valid.form else []
            if field.message_type and not field.message_type.full_name.startswith('google.') and (
                    field.label != field.LABEL_REPEATED or self.asked(field.message_type)):
                row.append(f'.message = &{self.of(field.message_type)}')
            if IMMUTABLE not in behavior and IDENTIFIER not in behavior and field.name != 'etag':
                updatable.append(field.name)
            # Texts and enums have limits without being asked for.
            if len(row) > 1 or field.type in (field.TYPE_STRING, field.TYPE_ENUM):
                rows.append('{' + ', '.join(row) + '}')
        name = self.done[message.full_name]
        is_resource = self.api.option(message, 'google.api.resource') is not None
        if rows:
            self.text.append(f'static const struct field_rule fields_{name}[] = {{\n        ' + ',\n        '.join(rows) + '};\n')
        self.text.append(f'static const struct message_rules {name} = {{&{c_descriptor(message)}, {len(rows)}, '
                         f'{"fields_" + name if rows else "NULL"}, {c_strings(updatable) if is_resource else "NULL"}}};\n')


def name_rule(api, method, http):
    """Where the request names its resource: from the HTTP path, or from a stream's header."""
    field, shape = None, None
    if http:
        path = getattr(http, http.WhichOneof('pattern'))
        match = re.search(r'\{([a-z_.]+)=([^}]*)\}', path)
        if match:
            field, shape = match.groups()
    else:
        header = next((f for f in method.input_type.fields if f.name == 'header' and f.message_type), None)
        parent = header and header.message_type.fields_by_name.get('parent')
        if parent:
            reference = api.option(parent, 'google.api.resource_reference')
            pattern = api.patterns[reference.type] if reference.type else api.patterns[reference.child_type].rsplit('/', 2)[0]
            field, shape = 'header.parent', re.sub(r'\{[^}]*\}', '*', pattern)
    if not field:
        return '{0}'
    for kind, pattern in api.patterns.items():
        if re.sub(r'\{[^}]*\}', '*', pattern) == shape:
            parts = pattern.split('/')
            return (f'{{"{field}", "{kind}", {c_strings(parts[0::2])}, '
                    f'{c_strings(p.strip("{}") for p in parts[1::2])}}}')
    problems.append(f'{method.full_name}: no resource has the pattern {shape}')
    return '{0}'


def kind_of(method, http):
    if http and http.WhichOneof('pattern') == 'get' and not method.name.startswith('List'):
        return 'METHOD_GET'
    for prefix in ('List', 'Create', 'Update', 'Delete'):
        if method.name.startswith(prefix):
            return f'METHOD_{prefix.upper()}'
    return 'METHOD_CUSTOM'


def method_row(api, rules, method, proto, queries, externs):
    system = method.full_name.startswith(SYSTEM)
    rule = api.option(method, 'devopsgenie.options.rule')
    http = api.option(method, 'google.api.http')
    if not rule and not system:
        problems.append(f'{method.full_name}: no access rule')
        return ''
    service = snake(method.containing_service.name)
    symbol = f'{service}_{snake(method.name)}'
    file = f'{service}/{snake(method.name)}.sql'
    streams = proto.client_streaming or proto.server_streaming
    handler = system or rule.handler
    row = [
        f'.path = "/{method.containing_service.full_name}/{method.name}"',
        f'.full_name = "{method.full_name}"',
        f'.service = "{method.containing_service.full_name}"',
        f'.kind = {kind_of(method, http)}',
        f'.request = &{c_descriptor(method.input_type)}',
        f'.response = &{c_descriptor(method.output_type)}',
        f'.rules = &{rules.of(method.input_type)}',
        f'.name = {name_rule(api, method, http)}',
    ]
    row += [f'.{f} = true' for f, v in (('client_streams', proto.client_streaming), ('server_streams', proto.server_streaming)) if v]
    if system:
        row.append('.access = {.no_caller = true}')
    else:
        access = [f'.least_role = {ROLES[rule.least_role]}'] if rule.least_role else []
        access += ['.service_roles = ' + ' | '.join(f'1U << {r}' for r in rule.service_roles)] if rule.service_roles else []
        access += [f'.{f} = true' for f in ('any_caller', 'no_caller', 'agents', 'on_deleted') if getattr(rule, f)]
        if not set(a.split()[0] for a in access) - {'.on_deleted'}:
            problems.append(f'{method.full_name}: its access rule lets nobody in')
        row.append('.access = {' + ', '.join(access) + '}')
        row += ['.access_changes = true'] if rule.changes_access else []
        lane = rule.lane or (1 if http and http.WhichOneof('pattern') == 'get' else 2)
        row.append(f'.lane = {["", "LANE_READ", "LANE_WRITE", "LANE_BULK"][lane]}')
        if http and http.body not in ('', '*'):
            row.append(f'.body = "{http.body}"')
    if handler:
        if file in queries:
            problems.append(f'{file}: {method.full_name} has a handler, and no statement of its own')
        if streams:
            externs.append(f'extern const struct stream_handler {symbol};')
            row.append(f'.stream = &{symbol}')
        else:
            externs.append(f'void {symbol}(struct call *call);')
            row.append(f'.handler = {symbol}')
    elif file not in queries:
        problems.append(f'{method.full_name}: neither {file} nor a handler')
    else:
        row += [f'.sql_file = "{file}"', f'.sql = {c_string(queries.pop(file))}']
        if rule.HasField('before'):
            externs.append(f'bool {symbol}_before(struct call *call);')
            row += [f'.before = {symbol}_before', f'.given = {c_strings(rule.before.gives)}']
        if rule.after:
            externs.append(f'bool {symbol}_after(struct call *call, ProtobufCMessage *response);')
            row.append(f'.after = {symbol}_after')
    return '    {' + ',\n     '.join(row) + '},\n'


def main():
    descriptor_set, queries_dir, migrations_dir, output = sys.argv[1:]
    api = Api(descriptor_set)
    root = pathlib.Path(queries_dir)
    queries = {str(p.relative_to(root)): p.read_text() for p in sorted(root.rglob('*.sql'))}
    internal = {f: queries.pop(f) for f in list(queries) if f.startswith('internal/')}
    rules, externs, rows = Rules(api), [], []
    for service in api.services():
        proto = descriptor_pb2.ServiceDescriptorProto()
        service.CopyToProto(proto)
        rows += [method_row(api, rules, m, p, queries, externs) for m, p in zip(service.methods, proto.method)]
    problems.extend(f'{file}: no method of that name' for file in queries)
    if problems:
        sys.exit('\n'.join(problems))
    headers = sorted({re.sub(r'proto$', 'pb-c.h', f.name) for f in api.files.file})
    migrations = sorted(pathlib.Path(migrations_dir).glob('*.sql'))
    with open(output, 'w', encoding='ascii') as out:
        out.write('// Generated by tools/method_table.py.\n#include "server/rpc/method.h"\n#include "storage/migrate.h"\n\n')
        out.writelines(f'#include <{h}>\n' for h in headers)
        out.write('\n' + '\n'.join(externs) + '\n\n' + '\n'.join(rules.text))
        out.write('\nconst struct method methods[] = {\n' + ''.join(rows) + '};\nconst unsigned method_count = sizeof methods / sizeof *methods;\n')
        out.write('\nconst struct internal_query internal_queries[] = {\n')
        out.writelines(f'    {{"{f}", {c_string(sql)}}},\n' for f, sql in internal.items())
        out.write('    {NULL, NULL}};\nconst unsigned internal_query_count = sizeof internal_queries / sizeof *internal_queries - 1;\n')
        out.write('\nconst struct migration migrations[] = {\n')
        out.writelines(f'    {{{int(m.name[:4])}, "{m.stem}", {c_string(m.read_text())}}},\n' for m in migrations)
        out.write('    {0, NULL, NULL}};\nconst unsigned migration_count = sizeof migrations / sizeof *migrations - 1;\n')
        out.write(f'\n__asm__(".section .rodata\\n.global descriptor_set, descriptor_set_end\\n"\n'
                  f'        "descriptor_set: .incbin \\"{descriptor_set}\\"\\ndescriptor_set_end: .byte 0\\n.previous\\n");\n')


main()
