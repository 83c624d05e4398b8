# SPDX-License-Identifier: GPL-2.0-only
"""Records what a CustomResourceDefinition says about an example:

    crd.py CRD.yaml NAME VERSION EXAMPLE.yaml >tests/packages/crds/EXAMPLE.json

NAME and VERSION are those of the project whose file CRD.yaml is. The output is a
JSON Schema with the names, types, values and required members of what EXAMPLE.yaml
has, and no other members, so that test_examples.py refuses them. It needs Debian's
python3-yaml.
"""

import json
import sys

import yaml

# What constrains a value.
KEPT = ("type", "enum", "pattern", "format", "required", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
        "minProperties", "maxProperties")


def part(schema, values):
    """The part of a schema that constrains these values, which are at the same
    place."""
    found = {k: schema[k] for k in KEPT if k in schema}
    if "properties" in schema:
        found["properties"] = {name: part(schema["properties"][name], [v[name] for v in values if name in v])
                               for name in sorted({name for v in values for name in v})}
        found["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    elif isinstance(schema.get("additionalProperties"), dict):
        found["additionalProperties"] = part(schema["additionalProperties"], [m for v in values for m in v.values()])
    if "items" in schema:
        found["items"] = part(schema["items"], [m for v in values for m in v])
    return found


def main():
    crds, name, version, example = sys.argv[1:]
    with open(example, encoding="utf-8") as file:
        document = yaml.safe_load(file)
    group, _, served = document["apiVersion"].partition("/")
    with open(crds, encoding="utf-8") as file:
        crd, = (c["spec"] for c in yaml.safe_load_all(file) if c and (c["spec"]["group"], c["spec"]["names"]["kind"]) == (group, document["kind"]))
    schema, = (v["schema"]["openAPIV3Schema"] for v in crd["versions"] if v["name"] == served and v["served"])
    # Kubernetes checks the metadata itself.
    schema["properties"]["metadata"] = {"type": "object"}
    found = part({**schema, "required": ["apiVersion", "kind", "metadata", *schema.get("required", [])]}, [document])
    found["properties"]["apiVersion"] = {"const": document["apiVersion"]}
    found["properties"]["kind"] = {"const": document["kind"]}
    found["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    json.dump({"$comment": f"Licence: SPDX-License-Identifier: GPL-2.0-only . {document['kind']} of {name} {version}, by tests/packages/crd.py", **found}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
