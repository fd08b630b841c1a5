// From JSON back to values of model.hpp.
#include "registry/fields.hpp"

#include <fmt/format.h>

#include "apikey/meta.hpp"
#include "registry/registry.hpp"

namespace keyloader {

std::optional<OwnerId> owner_id_from(std::string_view text) {
  OwnerId id{};
  return apikey::from_hex(text, id) ? std::optional(id) : std::nullopt;
}

Fields fields_of(const Json& state) {
  Fields fields;
  for (const auto& [name, value] : state.items()) {
    if (name == "limits") {
      for (const Json& limit : value) {
        fields["limits." + limit.value("name", std::string{})] = limit;
      }
    } else if (name == "meta") {
      for (const auto& [key, text] : value.items()) {
        fields["meta." + key] = text;
      }
    } else if (name != "reason") {
      fields[name] = value;
    }
  }
  return fields;
}

Json value_of(const Fields& fields, const std::string& name) {
  const auto found = fields.find(name);
  return found == fields.end() ? Json{} : found->second;
}

std::string string_of(const Json& value) { return value.is_string() ? value.get<std::string>() : std::string{}; }

Texts texts_of(const Fields& fields, const std::string& name) {
  const Json value = value_of(fields, name);
  return value.is_array() ? value.get<Texts>() : Texts{};
}

Seconds time_of(const Fields& fields, const std::string& name) {
  const Json value = value_of(fields, name);
  return seconds_from(string_of(value));
}

bool flag_of(const Fields& fields, const std::string& name) { return value_of(fields, name) == true; }

namespace {

Limits limits_of(const Fields& fields) {
  Limits limits;
  for (const auto& [name, value] : fields) {
    if (!name.starts_with("limits.")) {
      continue;
    }
    const auto limit = limit_from(value);
    if (!limit) {
      throw Failure(
          fmt::format("{} of that entry is no limit that this keyloader knows; set it with `keyloader … set`", name));
    }
    limits.push_back(*limit);
  }
  return limits;
}

MetaMap meta_of(const Fields& fields) {
  constexpr std::string_view start = "meta.";
  MetaMap meta;
  for (const auto& [name, value] : fields) {
    if (name.starts_with(start)) {
      meta[name.substr(start.size())] = string_of(value);
    }
  }
  return meta;
}

template <typename Bytes>
void read_bytes(const Fields& fields, const std::string& name, Bytes& bytes) {
  if (!apikey::from_hex(string_of(value_of(fields, name)), bytes)) {
    throw Failure(fmt::format("a state without its {}", name));
  }
}

apikey::KeyId id_of(const Fields& fields, const std::string& name) {
  const auto id = key_id_from(string_of(value_of(fields, name)));
  if (!id) {
    throw Failure(fmt::format("a state without its {}", name));
  }
  return *id;
}

template <typename Object>
Object named_object(const Json& state) {
  const Fields fields = fields_of(state);
  Object object;
  object.name = string_of(value_of(fields, "name"));
  object.created = time_of(fields, "created");
  assign(object, fields);
  return object;
}

}  // namespace

void assign(Plan& plan, const Fields& fields) { plan.limits = limits_of(fields); }

void assign(Role& role, const Fields& fields) { role.scopes = texts_of(fields, "scopes"); }

void assign(Owner& owner, const Fields& fields) {
  owner.email = string_of(value_of(fields, "email"));
  owner.team = string_of(value_of(fields, "team"));
  owner.meta = meta_of(fields);
  owner.limits = limits_of(fields);
  owner.is_suspended = flag_of(fields, "suspended");
  owner.suspended_until = time_of(fields, "suspended_until");
}

void assign(Key& key, const Fields& fields) {
  key.plan = string_of(value_of(fields, "plan"));
  key.name = string_of(value_of(fields, "name"));
  key.scopes = texts_of(fields, "scopes");
  key.roles = texts_of(fields, "roles");
  key.admin_scopes = texts_of(fields, "admin_scopes");
  key.may_grant = texts_of(fields, "may_grant");
  key.teams = texts_of(fields, "teams");
  key.ref = string_of(value_of(fields, "ref"));
  key.limits = limits_of(fields);
  key.allow_ip = texts_of(fields, "allow_ip");
  key.allow_origin = texts_of(fields, "allow_origin");
  key.allow_method = texts_of(fields, "allow_method");
  key.allow_host = texts_of(fields, "allow_host");
  key.requires_tls = flag_of(fields, "require_tls");
  key.meta = meta_of(fields);
  key.not_before = time_of(fields, "not_before");
  key.expires = time_of(fields, "expires");
  key.is_suspended = flag_of(fields, "suspended");
  key.suspended_until = time_of(fields, "suspended_until");
  key.revoked = time_of(fields, "revoked");
  key.revoked_reason = string_of(value_of(fields, "revoked_reason"));
}

Owner owner_from(const Json& state) {
  auto owner = named_object<Owner>(state);
  read_bytes(fields_of(state), "id", owner.id);
  return owner;
}

Plan plan_from(const Json& state) { return named_object<Plan>(state); }

Role role_from(const Json& state) { return named_object<Role>(state); }

Key key_from(const Json& state) {
  const Fields fields = fields_of(state);
  Key key;
  key.id = id_of(fields, "id");
  key.family = id_of(fields, "family");
  key.method = string_of(value_of(fields, "digest_method"));
  key.owner = string_of(value_of(fields, "owner"));
  key.env = string_of(value_of(fields, "env"));
  key.prefix = string_of(value_of(fields, "prefix"));
  key.hint = string_of(value_of(fields, "hint"));
  key.created = time_of(fields, "created");
  assign(key, fields);
  return key;
}

}  // namespace keyloader
