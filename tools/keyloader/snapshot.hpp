// The commands of the family `snapshot`, by file: snapshot.cpp (show, verify, list), snapshot_install.cpp (install,
// seal, rollback). Called by snapshot.cpp only.
#pragma once

#include "session.hpp"

namespace keyloader {

void add_snapshot_changes(Command& group, Session& session);

}  // namespace keyloader
