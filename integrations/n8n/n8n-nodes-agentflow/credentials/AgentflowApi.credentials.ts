import type {
	IAuthenticateGeneric,
	ICredentialTestRequest,
	ICredentialType,
	Icon,
	INodeProperties,
} from 'n8n-workflow';

export class AgentflowApi implements ICredentialType {
	name = 'agentflowApi';

	displayName = 'Agentflow API';

	icon: Icon = {
		light: 'file:../nodes/Agentflow/agentflow.svg',
		dark: 'file:../nodes/Agentflow/agentflow.dark.svg',
	};

	documentationUrl = 'https://example.org/agentflow/n8n';

	properties: INodeProperties[] = [
		{
			displayName: 'Base URL',
			name: 'baseUrl',
			type: 'string',
			default: 'http://localhost:8100',
			required: true,
			description: 'Where agentflow listens, without a path',
		},
		{
			displayName: 'API Key',
			name: 'apiKey',
			type: 'string',
			typeOptions: { password: true },
			default: '',
			description: 'Made with "agentflow keys create"; leave it empty for a server without keys',
		},
	];

	authenticate: IAuthenticateGeneric = {
		type: 'generic',
		properties: { headers: { 'X-Api-Key': '={{$credentials.apiKey}}' } },
	};

	// /v1/models asks for the key, /ok would not: a wrong key must fail here.
	test: ICredentialTestRequest = {
		request: { baseURL: '={{$credentials.baseUrl}}', url: '/v1/models' },
	};
}
