// Issuing a key: `key create` and `admin create` differ only in what may be said of it.
// Called by key_create.cpp and admin.cpp.
#pragma once

#include <optional>
#include <string>

#include "key_fields.hpp"
#include "session.hpp"

namespace keyloader {

struct CreateOptions {
  std::string owner;
  std::optional<std::string> prefix;  // nothing: the registry's
  bool creates_owner = false;
  bool is_sure = false;
  std::string reason;
  Texts admin_scopes;  // reserved ones
  Texts may_grant;     // of an administrator's key
  Texts teams;
  DeliveryOptions delivery;
  KeyFields fields;
};

// Prints the key, the only time that anybody sees it.
void create_key(const Session& session, const CreateOptions& options);

// --owner, --create-owner, --prefix and --yes.
void add_create_options(Command& command, CreateOptions& options);

}  // namespace keyloader
