-- The functions by which ScaiVault's root makes and ends accounts. They run as
-- the superuser who installs them, so they take nothing on trust: names have our
-- form, what is changed bears our mark, nothing that is mighty is touched, and
-- whoever is neither root nor a superuser may not call them. A mark is a comment
-- that only these functions, or a role with CREATEROLE, can set.
--
-- With them root needs no CREATEROLE, and on PostgreSQL 16 and later a creation
-- costs the same whether ten accounts live or a hundred thousand.

CREATE SCHEMA IF NOT EXISTS scaivault;
REVOKE ALL ON SCHEMA scaivault FROM PUBLIC;

-- own_accounts refuses all but accounts of ours, on request only disabled ones.
CREATE OR REPLACE FUNCTION scaivault.own_accounts(accounts text[], disabled boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	r record;
BEGIN
	IF coalesce(cardinality(accounts), 0) = 0 THEN
		RAISE invalid_parameter_value USING MESSAGE = 'no account is named';
	END IF;
	FOR r IN
		SELECT n.account, a.oid, a.rolcanlogin,
			(n.account COLLATE "C" ~ '^v_[A-Za-z0-9_.-]{1,61}$'
			AND starts_with(shobj_description(a.oid, 'pg_authid'), 'scaivault:' || n.account || ':')
			AND NOT (a.rolsuper OR a.rolcreaterole OR a.rolcreatedb OR a.rolreplication OR a.rolbypassrls)) IS TRUE AS ours
		FROM unnest(accounts) n(account) LEFT JOIN pg_roles a ON a.rolname = n.account
	LOOP
		IF r.oid IS NULL THEN
			RAISE undefined_object USING MESSAGE = format('role %s does not exist', quote_nullable(r.account));
		END IF;
		IF NOT r.ours THEN
			RAISE insufficient_privilege USING MESSAGE = format('role %I is no account of scaivault', r.account);
		END IF;
		IF disabled AND r.rolcanlogin THEN
			RAISE insufficient_privilege USING MESSAGE = format('role %I is in use: disable it first', r.account);
		END IF;
	END LOOP;
END $$;

-- own_group refuses what is no group of ours.
CREATE OR REPLACE FUNCTION scaivault.own_group(grp text) RETURNS oid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	r record;
BEGIN
	SELECT a.oid, shobj_description(a.oid, 'pg_authid') AS mark,
		a.rolcanlogin OR a.rolsuper OR a.rolcreaterole OR a.rolcreatedb OR a.rolreplication OR a.rolbypassrls AS mighty
		INTO r FROM pg_roles a WHERE a.rolname = grp;
	IF NOT FOUND THEN
		RAISE undefined_object USING MESSAGE = format('role %s does not exist', quote_nullable(grp));
	END IF;
	IF (grp COLLATE "C" ~ '^sv_[a-z0-9_]{1,60}$' AND starts_with(r.mark, 'scaivault:' || grp || ':group') AND NOT r.mighty) IS NOT TRUE THEN
		RAISE insufficient_privilege USING MESSAGE = format('role %I is no group of scaivault', grp);
	END IF;
	RETURN r.oid;
END $$;

CREATE OR REPLACE FUNCTION scaivault.create_account(account text, verifier text, valid_until timestamptz, grp text, mark text, as_group boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF (account COLLATE "C" ~ '^v_[A-Za-z0-9_.-]{1,61}$'
		AND verifier COLLATE "C" ~ '^SCRAM-SHA-256\$[1-9][0-9]{0,6}:[A-Za-z0-9+/]{20,100}={0,2}\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$'
		AND isfinite(valid_until)
		AND length(mark) < 250 AND starts_with(mark, 'scaivault:' || account || ':')) IS NOT TRUE THEN
		RAISE invalid_parameter_value USING MESSAGE = 'the name, verifier, end or mark of the account has not the right form';
	END IF;
	PERFORM scaivault.own_group(grp);
	EXECUTE format('CREATE ROLE %I LOGIN PASSWORD %L VALID UNTIL %L IN ROLE %I', account, verifier, valid_until, grp);
	EXECUTE format('COMMENT ON ROLE %I IS %L', account, mark);
	IF as_group THEN
		-- ALTER ROLE ... SET role is refused within such a function, so this is
		-- the row that it writes; DROP ROLE removes it.
		INSERT INTO pg_db_role_setting (setdatabase, setrole, setconfig)
			SELECT 0, a.oid, ARRAY['role=' || grp] FROM pg_authid a WHERE a.rolname = account;
	END IF;
END $$;

CREATE OR REPLACE FUNCTION scaivault.set_account_end(account text, valid_until timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM scaivault.own_accounts(ARRAY[account], false);
	IF isfinite(valid_until) IS NOT TRUE THEN
		RAISE invalid_parameter_value USING MESSAGE = 'an account needs an end';
	END IF;
	EXECUTE format('ALTER ROLE %I VALID UNTIL %L', account, valid_until);
END $$;

CREATE OR REPLACE FUNCTION scaivault.disable_accounts(accounts text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	account text;
BEGIN
	PERFORM scaivault.own_accounts(accounts, false);
	FOREACH account IN ARRAY accounts LOOP
		EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL VALID UNTIL ''-infinity''', account);
	END LOOP;
END $$;

-- lend_account makes root a member of a disabled account, by which it may end
-- its sessions and give its objects away.
CREATE OR REPLACE FUNCTION scaivault.lend_account(account text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM scaivault.own_accounts(ARRAY[account], true);
	IF current_setting('server_version_num')::int >= 160000 THEN
		EXECUTE format('GRANT %I TO %I WITH INHERIT TRUE, SET TRUE', account, session_user);
	ELSE
		EXECUTE format('GRANT %I TO %I', account, session_user);
	END IF;
END $$;

CREATE OR REPLACE FUNCTION scaivault.take_back_account(account text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM scaivault.own_accounts(ARRAY[account], true);
	EXECUTE format('REVOKE %I FROM %I', account, session_user);
END $$;

CREATE OR REPLACE FUNCTION scaivault.leave_group(account text, grp text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM scaivault.own_accounts(ARRAY[account], true);
	EXECUTE format('REVOKE %I FROM %I', grp, account);
END $$;

CREATE OR REPLACE FUNCTION scaivault.drop_accounts(accounts text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM scaivault.own_accounts(accounts, true);
	EXECUTE (SELECT 'DROP ROLE ' || string_agg(quote_ident(n.account), ', ') FROM unnest(accounts) n(account));
END $$;

CREATE OR REPLACE FUNCTION scaivault.create_group(grp text, mark text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF (grp COLLATE "C" ~ '^sv_[a-z0-9_]{1,60}$' AND length(mark) < 250 AND starts_with(mark, 'scaivault:' || grp || ':group')) IS NOT TRUE THEN
		RAISE invalid_parameter_value USING MESSAGE = 'the name or mark of the group has not the right form';
	END IF;
	EXECUTE format('CREATE ROLE %I NOLOGIN', grp);
	EXECUTE format('COMMENT ON ROLE %I IS %L', grp, mark);
END $$;

CREATE OR REPLACE FUNCTION scaivault.drop_group(grp text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	own oid := scaivault.own_group(grp);
BEGIN
	-- The comment, which stays what it is, takes the lock for which, from 16 on,
	-- the making of a member waits.
	EXECUTE format('COMMENT ON ROLE %I IS %L', grp, shobj_description(own, 'pg_authid'));
	IF EXISTS (SELECT FROM pg_auth_members WHERE roleid = own AND NOT admin_option) THEN
		RAISE object_in_use USING MESSAGE = format('group %I has members', grp);
	END IF;
	EXECUTE format('DROP ROLE %I', grp);
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA scaivault FROM PUBLIC;
