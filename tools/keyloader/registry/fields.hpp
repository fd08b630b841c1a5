// The state of an owner, a plan, a role or a key as the audit and a request for approval keep it, field by field, and
// the way back from it. Used by `audit revert`, by approvals and by what compares two states.
#pragma once

#include <map>
#include <string>

#include "registry/model.hpp"

namespace keyloader {

// Each thing that can change alone under a name of its own: `plan`, `limits.rate`, `meta.crm`.
using Fields = std::map<std::string, Json>;

// Of what to_json() made; a reason is no field.
[[nodiscard]] Fields fields_of(const Json& state);

// null where there is no such field.
[[nodiscard]] Json value_of(const Fields& fields, const std::string& name);
// Empty, 0 and false where there is none, or where it holds something else.
[[nodiscard]] std::string string_of(const Json& value);
[[nodiscard]] Texts texts_of(const Fields& fields, const std::string& name);
[[nodiscard]] Seconds time_of(const Fields& fields, const std::string& name);
[[nodiscard]] bool flag_of(const Fields& fields, const std::string& name);

// An owner's id of 32 hex digits.
[[nodiscard]] std::optional<OwnerId> owner_id_from(std::string_view text);

// All that can be changed of an object. What it was made with (ids, owner, digest, when) stays as it is. Throws Failure
// for a limit of a newer keyloader.
void assign(Owner& owner, const Fields& fields);
void assign(Plan& plan, const Fields& fields);
void assign(Role& role, const Fields& fields);
void assign(Key& key, const Fields& fields);

// The whole object. Of a key all but its digest, which no state holds. Throws Failure for what is no such state.
[[nodiscard]] Owner owner_from(const Json& state);
[[nodiscard]] Plan plan_from(const Json& state);
[[nodiscard]] Role role_from(const Json& state);
[[nodiscard]] Key key_from(const Json& state);

}  // namespace keyloader
