// What is said of a change that waits for a second person. Called by main.cpp and key_create.cpp; the commands are in
// approval.cpp.
#pragma once

#include <string>

#include "session.hpp"

namespace keyloader {

// "request 7 asks for it (scope billing:write); `keyloader approval approve 7 --key-file FILE` …".
// Also whether there is anybody to approve it.
[[nodiscard]] std::string request_text(const Session& session, const WaitsForApproval& waits);
[[nodiscard]] Json request_json(const WaitsForApproval& waits);

// Of a command that made nothing but the request.
void report_request(const Session& session, const WaitsForApproval& waits);

}  // namespace keyloader
